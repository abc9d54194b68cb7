//! Goldenscripts: one scenario per file, title = the property.
