"""Studies with people: any set of videos, judged in the browser, and a report on the answers.

One study is one folder. ``videos`` makes it, ``plan`` draws trials, ``app`` serves them, ``store``
keeps the answers, ``analysis`` and ``report`` say what they are; ``simulate`` proves it all.
Nothing is imported here: the web and database packages are extras.
"""
