"""What a served model is: its card, its tensors, its folder. Imports neither torch nor the web."""
