"""Studies with people: any set of videos, judged in the browser, and a report on the answers.

One study is one folder. The path through it, a module a step::

    materials   videos matched, checked and copied under names that tell nothing
    config      study.toml: texts, trials, playback, limits
    plan        which videos a visitor sees, in which order, on which side
    store       sessions, trials and answers in a database, each answer once
    app         the page and its interface; serve
    analysis    answers to results, by statistics
    report      page, Markdown and plots; export writes tables
    simulate    raters whose truth is known, to prove the path

Nothing is imported here: the web and database packages are extras.
"""
