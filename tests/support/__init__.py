"""What tests of several folders share: fixtures' machinery, a cluster of real processes, generated documentation."""
