"""Columns that are never proposed as features: identities of persons, and groups that the law protects.

They are recognised by the words of their names, in several languages of Europe; by no means all are.
"""

import re
import unicodedata

_LETTERS = str.maketrans({"ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "œ": "oe", "đ": "d"})
_CAMEL = re.compile(r"(?<=[a-zà-ÿ0-9])(?=[A-ZÀ-Þ])")


def word_set(words: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(words.split())


# Whole words of a column's name, without accents.
_PERSON = word_set("""
    name names surname firstname lastname forename fullname vorname nachname familienname nom noms prenom nombre nombres
    apellido apellidos cognome imie nazwisko naam voornaam achternaam nev keresztnev vezeteknev namn fornamn efternamn
    fornavn efternavn etternavn jmeno prijmeni meno priezvisko nume prenume
    email phone telephone telefon telefono telefonnummer tel
    address adresse direccion indirizzo adres cim street strasse anschrift wohnort
    postcode zip zipcode plz postleitzahl psc postnummer postnr irsz iranyitoszam
    birthday birthdate dob geburtsdatum geburtstag nascita geboortedatum
    iban ssn nin bsn dni nif pesel insee
""")
# Measurements of the body or the brain: of modalities, not of columns to leave out.
_BIOMETRIC = word_set("""
    eeg emg ecg ekg eda gsr ppg hrv fmri brain brainwave heartrate pulse puls galvanic respiration
    gaze eyetracking blick mirada
    face faces facial gesicht visage rostro viso voice voices voiceprint stimme voix voz voce
    fingerprint iris retina gait posture pose keystroke keystrokes
""")
_BIOMETRIC_PHRASES = ("heart rate", "eye tracking", "finger print", "brain wave", "key stroke")
_CONSENT = word_set("""
    consent consents consented einwilligung zustimmung consentement autorisation consentimiento consenso zgoda
    toestemming samtykke samtycke souhlas suhlas hozzajarulas suostumus acord optin
""")
_PERSON_PHRASES = (
    "e mail", "post code", "postal code", "code postal", "codigo postal", "kod pocztowy", "date of birth", "birth date",
    "date de naissance", "fecha de nacimiento", "data di nascita", "data urodzenia", "social security",
)  # fmt: skip
_GROUP = word_set("""
    female male hispanic weiblich mannlich maennlich fille garcon boy girl
    gender sex geschlecht sexe genre sexo genero sesso genere plec geslacht kjonn kjoenn pohlavi pohlavie
    disability disabilities disabled behinderung behindert handicap handicape discapacidad disabilita niepelnosprawnosc
    beperking fogyatekossag funktionsnedsattning sen foerderbedarf forderbedarf
    ethnicity ethnic ethnie race rasse etnia etnicita etnikum origine origen herkunft
    nationality nationalitat nationalitaet nationalite nacionalidad nazionalita narodowosc nationaliteit
    staatsangehorigkeit staatsangehoerigkeit citizenship migration migrationshintergrund
    religion religione religia konfession bekenntnis godsdienst vallas
    fsm deprivation imd
""")
# Short words that mean something else within a longer name, and things with names that are no persons.
_PERSON_ALONE, _GROUP_ALONE = frozenset({"cap", "mail"}), frozenset({"kon", "nem", "gen", "send", "black"})
_THINGS = word_set("file datei fichier fichero course kurs cours school schule ecole class klasse subject fach")
_LONG = 7  # letters from which a word counts inside a longer one, as German and Swedish join them


def ascii_of(text: str) -> str:
    """Return a text with letters that have no accents."""
    spaced = text.translate(_LETTERS)
    return "".join(c for c in unicodedata.normalize("NFKD", spaced) if not unicodedata.combining(c))


def words_of(column: str) -> list[str]:
    """Return the words of a column's name: small letters without accents, divided at signs and at capitals."""
    return re.findall(r"[^\W\d_]+", ascii_of(_CAMEL.sub(" ", column)).casefold())


def sensitive(column: str) -> str:
    """Return "person" for a column that identifies a person or a place, "group" for a protected group, else ""."""
    words = words_of(column)
    if _THINGS & set(words):
        return ""
    whole = frozenset(words) if len(words) == 1 else frozenset()
    if (
        whole & _PERSON_ALONE
        or _any_among(words, _PERSON)
        or any(f" {phrase} " in f" {' '.join(words)} " for phrase in _PERSON_PHRASES)
    ):
        return "person"
    return "group" if whole & _GROUP_ALONE or _any_among(words, _GROUP) else ""


def biometric(name: str) -> bool:
    """Whether a modality, a table or a column of this name seems to measure the body or the brain."""
    words = words_of(name)
    joined = f" {' '.join(words)} "
    return _any_among(words, _BIOMETRIC) or any(f" {phrase} " in joined for phrase in _BIOMETRIC_PHRASES)


def says_consent(column: str) -> bool:
    """Whether a column of this name seems to say who consents, or until when."""
    return _any_among(words_of(column), _CONSENT)


def _any_among(words: list[str], stems: frozenset[str]) -> bool:
    return any(
        word in stems or (len(word) > _LONG and any(len(stem) >= _LONG and stem in word for stem in stems))
        for word in words
    )
