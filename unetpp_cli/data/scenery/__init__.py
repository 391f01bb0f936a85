"""The world behind `--data demo`: a street, its light and everything in it, drawn with numpy and Pillow."""
