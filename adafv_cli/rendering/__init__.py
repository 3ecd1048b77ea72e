"""What is shown to people: reports, tables and cards, made of plain records."""
