"""Who is measured against whom: from the names and folders of a command to subjects and entrants."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from persona import families, networks
from persona.config import EvaluateConfig, check_prompts
from persona.drawing import processes
from persona.errors import BadOption, BadPrompt
from persona.evaluate.entrants import Entrant, Studio, of_persona
from persona.evaluate.methods import METHODS, STORES, learnt, open_persona
from persona.evaluate.pictures import how_of
from persona.evaluate.subjects import BARE, OTHERS, Prompt, Subject, chosen, masks_of, papers_prompts, read_dreambench
from persona.events import Listener, Note
from persona.families import Family
from persona.folder import Persona
from persona.photos import Photo, pictures
from persona.placing import named
from persona.prompts import read_prompts
from persona.score import has_judge
from persona.sitters import base_of

CLAY = "clay"
"""The edition of the protocol that is built in."""


def contest(config: EvaluateConfig, studio: Studio) -> list[Entrant]:
    """Return all entrants, in the order of their names and then of their subjects; what has to learn has learnt.

    Raises:
        BadOption: a name stands for nothing, or for what another does, or what it should draw is not said.
        BadPhotos: photos cannot be read.
        PersonaError: whatever loading a base, opening a persona or training one may raise.
    """
    if config.dreambench is not None:
        subjects = _of_data_set(config, config.dreambench, studio.hear)
        names = config.names or ("dreambooth",)
        _learn(config, names, subjects, studio)
        return [one for name in names for subject in subjects for one in METHODS[name](subject, studio)]
    personas = {name: open_persona(name) for name in config.names if name not in METHODS}
    if len({persona.path.resolve() for persona in personas.values()}) < len(personas):
        raise BadOption(f"Two of {', '.join(personas)} are the same persona. Name each once.")
    studio.fallback = next((persona.base for persona in personas.values()), studio.fallback)
    found, homes = _of_photos(config, personas, studio)
    _learn(config, config.names, found.values(), studio)
    labels = dict(zip(personas, _told_apart([persona.path for persona in personas.values()], METHODS), strict=True))
    entrants: list[Entrant] = []
    for name in config.names:
        if name in personas:
            entrants += of_persona(personas[name], found[homes[name]], studio, label=labels[name])
        else:
            entrants += [one for subject in found.values() for one in METHODS[name](subject, studio)]
    return entrants


def judged(config: EvaluateConfig, bases: Iterable[Family]) -> bool:
    """Tell whether bases are measured by the judge that they ship with, unless it does not know the photos."""
    return all(has_judge(base) for base in bases) and config.dreambench in (None, CLAY)


def have_networks(config: EvaluateConfig, listener: Listener) -> None:
    """Fetch the networks that measure, as far as they can be had, unless the user says where they are."""
    if config.networks is None:
        with processes().local_main_process_first():  # one fetches for all
            networks.fetch(listener)


def _learn(config: EvaluateConfig, names: Collection[str], subjects: Iterable[Subject], studio: Studio) -> None:
    """Train what has to be trained before any base is loaded, whose memory a training would miss.

    Raises:
        BadBase: the base has no weights of a method that shall draw beside it.
        BadOption: it cannot draw images as large as that.
    """
    if "dreambooth" in names:
        base = studio.methods_outline
        how_of(config, base)
        for store in (STORES[name] for name in names if name in STORES):
            store.check(base)
        if not judged(config, [base]):
            have_networks(config, studio.hear)  # a training scores its checkpoints by them, but never fetches
        for subject in subjects:
            learnt(subject, studio)


def _told_apart(folders: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """Return names for folders: their last parts, as many as tell them from each other and from what is taken."""
    resolved = [folder.resolve() for folder in folders]
    parts = 1
    while True:
        names = ["/".join(one.parts[-parts:]) for one in resolved]
        if len(set(names)) == len(set(resolved)) and not set(names) & set(taken):
            return names
        parts += 1


def _of_data_set(config: EvaluateConfig, edition: str, listener: Listener) -> list[Subject]:
    for name in config.names:
        if name not in METHODS:
            raise BadOption(f"{name} is no method. With --dreambench each subject is drawn by {', '.join(METHODS)}.")
    if edition == CLAY:
        from persona.evaluate import clay

        subjects = clay.subjects(config.out / "subjects", config.subjects)
    elif config.base is None:
        raise BadOption("Name the base that is to draw the data set's subjects: --base sd15")
    else:
        subjects = read_dreambench(Path(edition), config.subjects, listener)
    return [replace(subject, prompts=_asked(subject.prompts, config.prompts)) for subject in subjects]


def _of_photos(
    config: EvaluateConfig, personas: Mapping[str, Persona], studio: Studio
) -> tuple[dict[str, Subject], dict[str, str]]:
    """Return the subjects, by the folders of their photos or else by class, and the place of each persona's there."""
    folders = {folder.resolve(): str(folder) for folder in config.photos}  # none twice
    albums = {folder: pictures(Path(folder), studio.hear) for folder in folders.values()}
    homes = {name: _home(persona, albums, studio.hear) for name, persona in personas.items()}
    nouns = {home: personas[name].class_noun for name, home in reversed(homes.items())}
    for folder in albums:
        noun = nouns.get(folder) or config.class_noun
        if noun is None:
            raise BadOption(f"Say what the photos in {folder} show: --class dog")
        nouns[folder] = noun
    if not nouns:
        raise BadOption("Methods draw from photos. Say where they are, and what they show: --photos PHOTOS --class dog")
    if not albums:
        without = "Without --photos nothing can say how well the subject is met: only what was asked for is measured."
        studio.hear(Note(without, warning=True))
    first = next(iter(personas.values()), None)
    base = base_of(first, config.base, studio.listener, families.outline) if first else studio.methods_outline
    names = dict(zip(albums, _told_apart([Path(folder) for folder in albums]), strict=True))
    subjects = {
        home: _subject(config, home, names.get(home, noun), noun, albums.get(home, []), base)
        for home, noun in nouns.items()
    }
    return subjects, homes


def _home(persona: Persona, albums: Mapping[str, Sequence[Photo]], listener: Listener) -> str:
    """Return the folder with the photos that a persona has learnt from, or its class where no photos are given."""
    if not albums:
        return persona.class_noun
    known = set(persona.photos)
    shared = {folder: len(known & {photo.sha256 for photo in photos}) for folder, photos in albums.items()}
    folder = max(shared, key=lambda folder: shared[folder])
    if not shared[folder]:
        if len(albums) > 1:
            if not known:
                hint = "Give the --photos of its subject alone."
                raise BadOption(f"Another program made {persona.path}: what it learned from is not known. {hint}")
            raise BadOption(f"{persona.path} learned from none of the --photos. Name those that it learned from.")
        if known:  # of what came from another program nobody knows
            hint = "They are compared all the same: make sure that they are of the same subject."
            others = f"other photos than those in {Path(folder).resolve().name}"  # the page shows no paths
            listener(Note(f"{persona.path.resolve().name} learned from {others}. {hint}", warning=True))
    return folder


def _subject(config: EvaluateConfig, home: str, name: str, noun: str, photos: Sequence[Photo], base: Family) -> Subject:
    prompts: Sequence[Prompt] = [*papers_prompts(noun), BARE, *OTHERS]
    if has_judge(base):
        from persona.evaluate import clay

        prompts = clay.prompts(noun)
    return Subject(
        name=name,
        class_noun=noun,
        folder=Path(home) if photos else None,
        photos=photos,
        prompts=_asked(prompts, config.prompts),
        masks=masks_of(photos),
    )


def _asked(prompts: Sequence[Prompt], which: str | None) -> list[Prompt]:
    """Return the prompts that were asked for: all, so many of those about the subject, or those of a file instead.

    Raises:
        BadOption: there are not as many.
        BadPrompt: the file cannot be read, or holds a prompt that cannot be drawn or has no ``[V]``.
    """
    if which is None:
        return list(prompts)
    about = [prompt for prompt in prompts if prompt.kind == "subject"]
    if which.isdecimal():
        kept = chosen([prompt.template for prompt in about], which, "--prompts")
        about = [prompt for prompt in about if prompt.template in kept]
    else:
        own = tuple(dict.fromkeys(read_prompts(Path(which))))
        check_prompts(own)
        for text in own:
            if set(named(text)) != {"V"}:
                hint = 'Write "a [V] dog" there, and nothing else in brackets.'
                raise BadPrompt(f"{text[:60]!r} is not about the subject, or not about it alone. {hint}")
        about = [Prompt(text) for text in own]
    return [*about, *(prompt for prompt in prompts if prompt.kind != "subject")]
