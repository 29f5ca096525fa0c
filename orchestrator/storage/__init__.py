"""Where the files of jobs are kept."""
