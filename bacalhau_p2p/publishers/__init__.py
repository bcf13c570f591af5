"""Publishers put accepted results where users can fetch them."""
