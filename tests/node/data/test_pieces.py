"""Texts from scratch: of every script about as many pieces, so that as much of a text is read in each."""

import pytest

from collegium.node.data.pieces import pieces

# Article 1 of the Universal Declaration of Human Rights, its first sentence.
ARTICLE = {
    "English": "All human beings are born free and equal in dignity and rights.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Russian": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Arabic": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "Persian": "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Bengali": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "Tamil": "மனிதப் பிறிவியினர் சகலரும் சுதந்திரமாகவே பிறக்கின்றனர்; அவர்கள் மதிப்பிலும், உரிமைகளிலும் சமமானவர்கள்.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Amharic": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
    "Georgian": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით.",
}


@pytest.mark.parametrize("language", ARTICLE)
def test_every_script_has_about_as_many_pieces_a_character_as_english(language: str) -> None:
    def rate(text: str) -> float:
        return len(pieces(text)) / len(text)

    assert 1 / 3 <= rate(ARTICLE[language]) / rate(ARTICLE["English"]) <= 3, pieces(ARTICLE[language])


def test_words_keep_their_marks_and_signs_stand_alone() -> None:
    assert pieces("The CAT, sat_on 12!") == ["the", "cat", ",", "sat_on", "12", "!"]
    assert pieces("நான் हिन्दी") == ["நான்", "हिन्दी"]
    assert pieces("人人生而自由") == ["人人", "生而", "自由"]
    assert pieces("a" * 30) == ["a" * 12, "a" * 12, "a" * 6]
    assert pieces("\ud800 \n") == []
