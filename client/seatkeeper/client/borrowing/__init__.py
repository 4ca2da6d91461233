"""What a machine keeps of the seats that it has borrowed, and how it verifies them offline."""
