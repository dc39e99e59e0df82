"""What a data set holds, seen before it is used: raw cases -> statistics -> one page."""
