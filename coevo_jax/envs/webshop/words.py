"""What a generated catalogue is made of: departments, kinds of products, their attributes and options."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of product: its search query, how a person names one, its place and its options."""

    query: str
    one: str  # "" or words before the name: "a", "a pair of"
    path: str  # middle of the product category
    options: tuple[str, ...]  # names of OPTIONS
    price: tuple[int, int]  # dollars


@dataclass(frozen=True, kw_only=True)
class Department:
    """A product category with the attributes its products draw from."""

    root: str  # head of the product category
    attributes: tuple[str, ...]
    kinds: tuple[Kind, ...]


def _kind(query: str, one: str, path: str, options: str, low: int, high: int) -> Kind:
    return Kind(query=query, one=one, path=path, options=tuple(options.split()), price=(low, high))


def _words(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(","))


# No value of an option occurs under another name: a click names a value only.
OPTIONS: dict[str, tuple[str, ...]] = {
    "color": _words(
        "black, white, gray, navy, red, green, pink, purple, brown, beige, yellow, orange, teal, silver, gold"
    ),
    "size": _words("x-small, small, medium, large, x-large, xx-large"),
    "shoe size": _words("6, 7, 8, 9, 10, 11, 12"),
    "dimensions": _words("12 inch, 16 inch, 20 inch, 24 inch, 36 inch, 48 inch"),
    "length": _words("3 feet, 6 feet, 10 feet, 15 feet, 25 feet"),
    "volume": _words("2 ounce, 4 ounce, 8 ounce, 16 ounce, 32 ounce"),
    "scent": _words("lavender, vanilla, citrus, mint, eucalyptus, jasmine, unscented"),
    "flavor": _words("chocolate, strawberry, caramel, honey, cinnamon, salted, spicy, original"),
    "count": _words("pack of 1, pack of 2, pack of 3, pack of 6, pack of 12"),
    "material": _words("oak, bamboo, aluminum, ceramic, leather, canvas"),
    "pet": _words("puppy, adult dog, senior dog, kitten, adult cat"),
    "model": _words("compact, classic, deluxe, travel"),
}

DEPARTMENTS: dict[str, Department] = {
    "beauty": Department(
        root="Beauty & Personal Care",
        attributes=_words(
            "cruelty free, paraben free, sulfate free, alcohol free, long lasting, tea tree, coconut oil, "
            "dermatologist tested, anti aging, travel size"
        ),
        kinds=(
            _kind("shampoo", "a", "Hair Care › Shampoo", "scent volume", 6, 40),
            _kind("face moisturizer", "a", "Skin Care › Face", "scent volume", 9, 60),
            _kind("body lotion", "a", "Skin Care › Body", "scent volume", 5, 35),
            _kind("lip balm", "a", "Makeup › Lips", "scent count", 3, 20),
            _kind("nail polish", "a", "Makeup › Nails", "color count", 4, 25),
        ),
    ),
    "electronics": Department(
        root="Electronics",
        attributes=_words(
            "noise cancelling, fast charging, water resistant, long battery life, high definition, "
            "hands free, plug and play, energy saving, voice control, heavy duty"
        ),
        kinds=(
            _kind("wireless earbuds", "a pair of", "Headphones › Earbuds", "color model", 15, 120),
            _kind("bluetooth speaker", "a", "Audio › Speakers", "color model", 18, 150),
            _kind("charging cable", "a", "Accessories › Cables", "color length", 5, 30),
            _kind("phone case", "a", "Accessories › Cases", "color", 6, 45),
            _kind("computer mouse", "a", "Computers › Mice", "color model", 8, 80),
        ),
    ),
    "fashion": Department(
        root="Clothing, Shoes & Jewelry",
        attributes=_words(
            "machine wash, quick drying, slim fit, long sleeve, elastic waist, moisture wicking, "
            "wrinkle free, breathable fabric, polyester cotton, classic fit"
        ),
        kinds=(
            _kind("t-shirt", "a", "Tops › Shirts", "color size", 8, 45),
            _kind("winter jacket", "a", "Outerwear › Jackets", "color size", 30, 200),
            _kind("jogger pants", "a pair of", "Bottoms › Pants", "color size", 15, 70),
            _kind("summer dress", "a", "Dresses › Casual", "color size", 18, 90),
            _kind("ankle socks", "", "Underwear › Socks", "color count", 5, 25),
        ),
    ),
    "shoes": Department(
        root="Clothing, Shoes & Jewelry › Footwear",
        attributes=_words(
            "arch support, memory foam, non slip, rubber sole, steel toe, ankle strap, wide width, "
            "shock absorbing, faux fur, open toe"
        ),
        kinds=(
            _kind("running shoes", "a pair of", "Athletic › Running", "color shoe-size", 30, 150),
            _kind("hiking boots", "a pair of", "Outdoor › Boots", "color shoe-size", 45, 220),
            _kind("house slippers", "a pair of", "Casual › Slippers", "color shoe-size", 10, 50),
            _kind("beach sandals", "a pair of", "Casual › Sandals", "color shoe-size", 12, 60),
        ),
    ),
    "grocery": Department(
        root="Grocery & Gourmet Food",
        attributes=_words(
            "gluten free, sugar free, low sodium, dairy free, plant based, keto friendly, high protein, "
            "non gmo, hand crafted, individually wrapped"
        ),
        kinds=(
            _kind("granola bars", "some", "Snacks › Bars", "flavor count", 5, 40),
            _kind("ground coffee", "some", "Beverages › Coffee", "flavor volume", 7, 45),
            _kind("potato chips", "some", "Snacks › Chips", "flavor count", 3, 30),
            _kind("almond butter", "some", "Pantry › Spreads", "flavor volume", 6, 30),
            _kind("trail mix", "some", "Snacks › Nuts", "flavor count", 5, 35),
        ),
    ),
    "furniture": Department(
        root="Home & Kitchen › Furniture",
        attributes=_words(
            "easy assembly, solid wood, space saving, contemporary style, tempered glass, height adjustable, "
            "stain resistant, metal legs, mid century, weight capacity"
        ),
        kinds=(
            _kind("coffee table", "a", "Living Room › Tables", "material dimensions", 50, 400),
            _kind("bookshelf", "a", "Office › Shelves", "material dimensions", 40, 300),
            _kind("bar stool", "a", "Dining Room › Stools", "color material", 35, 250),
            _kind("desk chair", "a", "Office › Chairs", "color material", 60, 450),
        ),
    ),
    "garden": Department(
        root="Patio, Lawn & Garden",
        attributes=_words(
            "weather resistant, uv protection, rust proof, solar powered, leak proof, fast growing, "
            "self watering, motion sensor, foldable frame, drip free"
        ),
        kinds=(
            _kind("garden hose", "a", "Watering › Hoses", "color length", 15, 90),
            _kind("flower pot", "a", "Planters › Pots", "color dimensions", 8, 60),
            _kind("path lights", "some", "Lighting › Path", "color count", 12, 80),
            _kind("patio umbrella", "a", "Shade › Umbrellas", "color dimensions", 40, 220),
        ),
    ),
    "kitchen": Department(
        root="Home & Kitchen › Dining",
        attributes=_words(
            "dishwasher safe, bpa free, stainless steel, heat resistant, non stick, double walled, "
            "oven safe, induction ready, stackable design, scratch proof"
        ),
        kinds=(
            _kind("frying pan", "a", "Cookware › Pans", "color dimensions", 14, 120),
            _kind("water bottle", "a", "Drinkware › Bottles", "color volume", 8, 45),
            _kind("cutting board", "a", "Tools › Boards", "material dimensions", 9, 70),
            _kind("coffee mug", "a", "Drinkware › Mugs", "color volume", 5, 35),
        ),
    ),
    "office": Department(
        root="Office Products",
        attributes=_words(
            "quick dry ink, acid free, smudge proof, recycled paper, refillable cartridge, ergonomic grip, "
            "spiral bound, college ruled, fade resistant, fine point"
        ),
        kinds=(
            _kind("gel pens", "some", "Writing › Pens", "color count", 4, 25),
            _kind("notebook", "a", "Paper › Notebooks", "color count", 3, 30),
            _kind("desk organizer", "a", "Storage › Desk", "color material", 10, 60),
            _kind("desk lamp", "a", "Lighting › Lamps", "color model", 15, 90),
        ),
    ),
    "toys": Department(
        root="Toys & Games",
        attributes=_words(
            "easy clean, washable paint, battery free, glow in dark, non toxic, remote controlled, "
            "magnetic pieces, rounded edges, stem learning, soft plush"
        ),
        kinds=(
            _kind("building blocks", "some", "Construction › Blocks", "color count", 10, 80),
            _kind("stuffed bear", "a", "Plush › Animals", "color dimensions", 8, 50),
            _kind("toy car", "a", "Vehicles › Cars", "color model", 6, 60),
            _kind("jigsaw puzzle", "a", "Puzzles › Jigsaw", "model count", 7, 40),
        ),
    ),
    "pets": Department(
        root="Pet Supplies",
        attributes=_words(
            "grain free, chew proof, odor control, orthopedic foam, machine washable, slow feeding, "
            "reflective stitching, hypoallergenic fabric, vet approved, no pull"
        ),
        kinds=(
            _kind("pet bed", "a", "Beds › Cushions", "color pet", 15, 110),
            _kind("pet food", "some", "Food › Dry", "pet count", 10, 90),
            _kind("pet harness", "a", "Walking › Harnesses", "color size", 9, 50),
            _kind("feeding bowl", "a", "Feeding › Bowls", "color volume", 6, 40),
        ),
    ),
    "sports": Department(
        root="Sports & Outdoors",
        attributes=_words(
            "sweat proof, extra thick, carbon fiber, tear resistant, lightweight design, padded straps, "
            "anti fog, wind proof, insulated lining, quick release"
        ),
        kinds=(
            _kind("yoga mat", "a", "Fitness › Yoga", "color length", 12, 80),
            _kind("camping tent", "a", "Camping › Tents", "color model", 50, 350),
            _kind("hiking backpack", "a", "Camping › Packs", "color model", 30, 180),
            _kind("jump rope", "a", "Fitness › Cardio", "color length", 5, 30),
        ),
    ),
}

BRANDS = _words(
    "Velora, Norvik, Brightfen, Calder, Ostrava, Lumina, Pinecrest, Quillon, Tamsin, Wexford, Zephra, "
    "Halden, Mirabel, Corwin, Daleside, Elmora, Fenwick, Grovely, Ishan, Juniper Lane"
)

TITLES = (
    "{brand} {kind}, {first}, {second}",
    "{brand} {first} {kind} - {second}",
    "{kind} by {brand}, {first} and {second}",
)
DESCRIPTIONS = (
    "This {kind} from {brand} is made for every day: {attributes}.",
    "{brand} presents a {kind} you can rely on, {attributes}.",
    "Meet the {kind} by {brand}. It offers {attributes}.",
)
BULLETS = (
    "{attribute}: a {kind} made to please",
    "{attribute} for your comfort",
    "Designed to be {attribute}",
    "Our {kind} comes {attribute}",
)

OPENERS = _words(
    "i need, i am looking for, i'm looking for, find me, i want to buy, i would like, please find me, "
    "show me, help me find, i'm shopping for, get me, i want"
)
BEFORE = ("{attributes} {kind}",)
AFTER = ("{kind} with {attributes}", "{kind} described as {attributes}", "{kind}, it has to say {attributes}")
CHOICES = (" in {values}", ", preferably {named}", ". it should come with {named}", ", i want the {named}")
