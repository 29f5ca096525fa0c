"""Model archives (.mar)."""
