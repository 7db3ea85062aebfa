"""Where documents come from: one reader a kind of source, and the line that names them."""
