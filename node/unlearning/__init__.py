"""Taking contributions back: who was drawn and who is left out, what a withdrawal reaches, one student's removal."""
