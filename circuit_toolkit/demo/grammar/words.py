"""The words of the grammar, by class; every list is plain data, split from one string."""

from __future__ import annotations

FEMALE_NAMES = """
Mary Anna Laura Susan Emma Julia Alice Clara Diana Ella Fiona Grace Hannah Irene Jane Karen Linda
Maria Nora Olivia Paula Rachel Sarah Tina Vera Wendy Zoe Amy Beth Carol Daisy Edith Flora Gina
Helen Ivy Joan Kate Lucy Megan Nancy Opal Penny Ruth Sonia Tara Una Violet Wanda Yvonne Abigail
Bridget Celia Dora Eva Frida Greta Heidi Iris Judy
""".split()
MALE_NAMES = """
John Tom James Robert David Paul Mark Peter George Henry Simon Adam Brian Carl Daniel Edward Frank
Gary Harry Ivan Jack Kevin Leo Martin Neil Oscar Philip Quentin Ralph Samuel Victor Walter Alan
Boris Chris Dennis Eric Felix Greg Hugo Ian Jacob Kyle Louis Max Nathan Oliver Patrick Roger
Steven Thomas Vincent William Andrew Bruce Colin Derek Ernest Fred Gordon
""".split()

PLACES = """
store park school garden library station market museum beach office kitchen harbor castle bridge
theater cafe church stadium restaurant hotel airport farm forest village square zoo gym bakery
factory studio gallery pool island river lake valley camp hall court temple palace tower barn
cinema bookshop playground meadow cabin pier
""".split()
CITIES = """
Paris London Rome Berlin Madrid Vienna Prague Dublin Oslo Athens Lisbon Warsaw Cairo Delhi Tokyo
Lima Quito Havana Boston Chicago Denver Dallas Seattle Toronto Sydney Geneva Munich Milan Naples
Porto
""".split()
OBJECTS = """
ring book drink ball letter necklace bag kiss basket bone computer key map lamp coin watch flower
hat scarf ticket card painting camera guitar pen notebook cup plate knife spoon blanket pillow
umbrella bottle box candle mirror toy puzzle drum violin ladder rope hammer shovel bucket wallet
phone photo magazine sandwich gift jacket sweater glove boot shirt poem
""".split()
FOODS = """
bread cheese soup rice honey apples pears grapes cake pie salad pasta fish eggs butter nuts olives
beans corn tea coffee milk juice chocolate
""".split()
FURNITURE = """
table chair sofa bed desk shelf bench carpet window door fence stove clock piano
""".split()

# Nouns that can be the subject of an agreement sentence: singular and plural.
NOUN_PAIRS = [
    tuple(pair.split("/"))
    for pair in """
boy/boys girl/girls dog/dogs cat/cats bird/birds horse/horses cow/cows sheepdog/sheepdogs
rabbit/rabbits lion/lions tiger/tigers bear/bears wolf/wolves fox/foxes duck/ducks goose/geese
mouse/mice snake/snakes frog/frogs bee/bees teacher/teachers student/students doctor/doctors
farmer/farmers singer/singers dancer/dancers driver/drivers guard/guards soldier/soldiers
sailor/sailors king/kings queen/queens prince/princes author/authors poet/poets judge/judges
lawyer/lawyers child/children man/men woman/women friend/friends neighbor/neighbors cousin/cousins
uncle/uncles aunt/aunts brother/brothers sister/sisters customer/customers guest/guests
manager/managers senator/senators minister/ministers pilot/pilots clerk/clerks car/cars
truck/trucks boat/boats ship/ships train/trains plane/planes house/houses tree/trees
cabinet/cabinets picture/pictures report/reports story/stories song/songs film/films
machine/machines engine/engines wall/walls road/roads cloud/clouds star/stars stone/stones
field/fields plant/plants leaf/leaves baker/bakers statue/statues
""".split()
]
ADJECTIVES = """
big small old young happy sad quiet loud bright dark clean dirty warm cold fast slow strong weak
rich poor kind brave calm clever funny gentle proud shy wise wild tall short heavy light soft hard
sweet bitter fresh dry wet empty full new broken lovely strange famous simple golden silver red
blue green yellow white black brown purple pink orange gray busy lazy hungry thirsty tired angry
nervous cheerful honest polite careful round flat narrow wide deep shallow sharp smooth rough
""".split()
ADVERBS = """
quickly slowly quietly loudly happily sadly gently bravely calmly often rarely always never
sometimes usually early late again there outside inside nearby yesterday today
""".split()
PREPOSITIONS = """
near behind beside under above with from opposite beyond below
""".split()

# Verbs: form after a singular subject, form after a plural subject.
AUXILIARIES = [("is", "are"), ("was", "were"), ("has", "have"), ("does", "do")]
INTRANSITIVE = [
    (f"{verb}s", verb)
    for verb in """
run sleep sing dance smile jump swim laugh wait work play rest travel grow fall move shine
""".split()
]
TRANSITIVE = [
    (f"{verb}s", verb)
    for verb in """
like love see follow help know hear avoid admire praise want visit remember paint clean draw chase
protect need trust fear respect
""".split()
]
GIVE_PAST = """
gave handed passed sent brought offered showed sold threw lent
""".split()
GIVE_BASE = "give hand pass send bring offer show sell throw lend".split()
WANTED = "decided wanted agreed hoped planned tried".split()
THINGS_DONE_PAST = """
found bought lost saw painted opened closed cleaned broke fixed carried dropped kept noticed
borrowed washed wrapped hid
""".split()

EVENTS = """
war trip siege journey reign famine festival expedition plague drought conflict campaign strike
voyage trial debate project tour search revolt truce treaty exhibition experiment dynasty
occupation migration mission contest celebration crisis storm tournament parade
""".split()
EVENT_VERBS = "lasted ran continued stretched extended".split()

# Profession: (usual gender, places of work, what one in it does, and to whom or what).
PROFESSIONS = {
    "nurse": ("female", "clinic hospital ward", "treats comforts", "patients infants"),
    "professor": ("male", "university academy college", "teaches lectures", "physics algebra"),
    "librarian": ("female", "archive reading_room", "sorts lends_out", "novels volumes"),
    "engineer": ("male", "plant_site workshop", "designs tests", "turbines circuits"),
    "secretary": ("female", "agency bureau", "types files", "memos contracts"),
    "carpenter": ("male", "sawmill shed", "builds repairs", "cupboards doors"),
    "florist": ("female", "greenhouse flower_shop", "arranges waters", "roses tulips"),
    "plumber": ("male", "basement depot", "installs unblocks", "pipes drains"),
    "midwife": ("female", "maternity birth_center", "delivers weighs", "babies twins"),
    "butcher": ("male", "slaughterhouse meat_shop", "cuts smokes", "sausages steaks"),
    "dietitian": ("female", "canteen health_center", "plans measures", "diets meals"),
    "surgeon": ("male", "operating_room trauma_unit", "operates stitches", "wounds fractures"),
    "tailor": ("female", "boutique sewing_room", "sews hems", "dresses suits"),
    "mechanic": ("male", "garage pit_lane", "tunes oils", "gearboxes brakes"),
}
DEGREES = "degree diploma prize scholarship medal".split()
HOBBIES = """
chess tennis hockey yoga skiing fishing sailing hiking cooking reading
""".split()

FUNCTIONS = """
port load_data parse build update fetch render merge split_rows convert resize encode decode
filter sort_items scan write_log publish compress verify
""".split()
ARGUMENTS = """
load size file last first image path value index name color width height depth count limit start
end mode level text label score model data rate scale shape type source target host token user
group cache timeout buffer offset prefix suffix key_map order query schema table_id column row
page version status config logger weight bias input output matrix vector result
""".split()
DOC_WORDS = """
oil crime unit population hour theory action energy water market_price science history language
system society reason method culture idea music nature power paper law art economy body air land
safety sound stage career memory freedom growth effort answer chance
""".split()

FUNCTION_WORDS = """
the a an and or but to of in on at by for then when after while before because that this these two
many one it they she he her his him them their who which not went walked came left were was had
been together long talk day evening morning night afterwards later suddenly meanwhile soon friends
met lived sat down talked some time finally again really very so there working playing shopping
started as year ended began years until between century lasted from into until good bad people
knew said heard thinks knows says born moved lives works studied won likes enjoys loves job own
every week summer winter spring autumn rain snow wind weather is are saw spent hours lunch dinner
argument fun had home way looked smiled laughed thanked waved return ceremony during over around
everyone something nothing once upon little lot much with about
""".split()
SYMBOLS = [".", ",", ":", "(", ")", '"""', ":param", "def", "self", "?", "!"]
NUMBERS = [f"{i:02d}" for i in range(100)]
CENTURIES = [f"{i:02d}" for i in range(11, 21)]
