"""What others have published on DreamBench, to be read with care."""

WARNING = (
    "The same method differs by .04 to .08 DINO from one publication to the next, by evaluator, prompts and sampler. "
    "Compare rows of one evaluator with each other; these figures only say about where yours should be. A DINO near or "
    "above that of real photos, from one reference, is a copy and not a better likeness."
)
"""How to read it."""

TABLE = (
    ("method", "base", "references", "DINO", "CLIP-I", "CLIP-T", "source"),
    ("real photos", "-", "-", ".774", ".885", "-", "2208.12242"),
    ("DreamBooth", "Imagen", "3-5", ".696", ".812", ".306", "2208.12242"),
    ("DreamBooth", "SD", "3-5", ".668", ".803", ".305", "2208.12242"),
    ("Textual Inversion", "SD", "3-5", ".569", ".780", ".255", "2208.12242"),
    ("Custom Diffusion", "SD 1.5", "3-5", ".643", ".790", ".305", "2411.17786"),
    ("BLIP-Diffusion, fine-tuned", "SD 1.5", "3-5", ".670", ".805", ".302", "2411.17786"),
    ("BLIP-Diffusion", "SD 1.5", "1", ".594", ".779", ".300", "2411.17786"),
    ("λ-ECLIPSE", "Kandinsky 2.2", "1", ".613", ".783", ".307", "λ-ECLIPSE"),
    ("λ-ECLIPSE, fine-tuned", "Kandinsky 2.2", "1", ".682", ".796", ".304", "λ-ECLIPSE"),
    ("Re-Imagen", "Imagen", "1-3", ".600", ".740", ".270", "2411.17786"),
    ("ELITE", "SD 1.4", "1", ".621", ".771", ".293", "2411.17786"),
    ("SuTI", "Imagen", "1-3", ".741", ".819", ".304", "2411.17786"),
    ("IP-Adapter", "SD 1.5", "1", ".667", ".813", ".289", "2411.17786"),
    ("IP-Adapter", "SDXL", "1", ".613", ".810", ".292", "λ-ECLIPSE"),
    ("IP-Adapter", "FLUX", "1", ".582", ".820", ".288", "2504.02160"),
    ("IP-Adapter, run again", "FLUX", "1", ".561", ".725", ".351", "2411.15466"),
    ("Kosmos-G", "SD 1.5", "1", ".694", ".847", ".287", "2411.17786"),
    ("Kosmos-G, run again", "SD 1.5", "1", ".618", ".822", ".250", "λ-ECLIPSE"),
    ("Emu2", "SDXL", "1", ".563", ".765", ".273", "λ-ECLIPSE"),
    ("SSR-Encoder", "SD 1.5", "1", ".612", ".821", ".308", "2504.02160"),
    ("Subject-Diffusion", "SD 2", "1", ".711", ".787", ".293", "λ-ECLIPSE"),
    ("JeDi", "SD 1.4", "1", ".619", ".782", ".304", "2411.17786"),
    ("BootPIG", "SD 2.1", "3", ".674", ".797", ".311", "2411.17786"),
    ("ToffeeNet", "SD 2.1", "1", ".728", ".817", ".306", "2411.17786"),
    ("CAFE", "SD 2.1", "1", ".715", ".827", ".294", "2411.17786"),
    ("DreamCache", "SD 1.5", "1", ".713", ".810", ".298", "2411.17786"),
    ("DreamCache", "SD 2.1", "1", ".767", ".816", ".301", "2411.17786"),
    ("MS-Diffusion", "SDXL", "1", ".671", ".792", ".321", "2411.15466"),
    ("RealCustom++", "SDXL", "1", ".702", ".794", ".318", "2504.02160"),
    ("TFCustom", "-", "1", ".714", ".841", ".339", "TFCustom"),
    ("TFCustom, fine-tuned", "-", "1", ".741", ".859", ".351", "TFCustom"),
    ("Diptych Prompting", "FLUX", "1", ".689", ".758", ".344", "2411.15466"),
    ("OminiControl", "FLUX", "1", ".684", ".799", ".312", "2504.02160"),
    ("OmniGen", "-", "1", ".693", ".801", ".315", "2504.02160"),
    ("UniReal", "-", "1", ".702", ".806", ".326", "CoLoGen"),
    ("CoLoGen", "-", "1", ".714", ".825", ".315", "CoLoGen"),
    ("UNO", "FLUX", "1", ".760", ".835", ".304", "2504.02160"),
    ("DreamO", "FLUX", "1", ".760", ".834", ".306", "MOSAIC"),
    ("XVerse", "FLUX", "1", ".754", ".832", ".302", "MOSAIC"),
    ("MOSAIC", "FLUX", "1", ".774", ".843", ".316", "MOSAIC"),
    ("USO", "FLUX", "1", ".777", ".838", ".317", "USO"),
)
"""With a head; the source is an arXiv number or the name of the paper whose table it stands in."""
