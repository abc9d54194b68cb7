//! `backup now`: the newest snapshot and the committed log behind the last backup, in a directory.
