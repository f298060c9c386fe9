"""The verification gallery: sections of checks, their references, controls and pictures."""
