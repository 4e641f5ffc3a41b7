"""One parser a format; each turns bytes into a ParsedDocument and never reads anything but those bytes."""
