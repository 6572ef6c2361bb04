"""Token alignment: a student's tokens and those of a teacher with another tokenizer."""
