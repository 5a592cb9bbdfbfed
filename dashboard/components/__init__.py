"""What pages are composed of: custom elements, texts in both languages, the frame around a page."""
