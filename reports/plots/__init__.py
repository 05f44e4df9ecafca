"""One module a figure: its data, its drawing, its caption."""
