"""Answers to a person's questions: explain, check."""
