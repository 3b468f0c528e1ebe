"""The async rim around `core`: feeds the table with what happens and performs what it asks for."""
