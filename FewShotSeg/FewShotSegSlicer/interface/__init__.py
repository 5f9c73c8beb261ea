"""What panel and logic owe each other: rows of data, and a protocol."""
