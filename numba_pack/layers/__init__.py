"""What people call: layers, one step of them, the forms of their input, the same in compiled code, and their files."""
