"""Jobs over many questions: reading them, answering them, and the log that loses nothing."""
