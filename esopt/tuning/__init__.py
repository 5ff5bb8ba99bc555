"""Settings that a run finds out by itself: rates scale the rule's step, sizings choose the number of rows."""
