"""What every report is made of: the page and its figures, numbers in words, and plots."""
