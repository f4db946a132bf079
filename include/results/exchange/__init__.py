"""Results in the shapes of other tools: import and export, refusing what is not what it says it is."""
