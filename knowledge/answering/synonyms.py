"""English words that questions may exchange without asking something else. Tables for ``wording.py``.

Everything here says that a difference does not matter, so each line must hold in every question: what is merely similar
(`secondary` and `backup`, `deny` and `drop`, `upgrade` and `update`) is left out. A word that is in no table counts.
"""

import re

_split = re.compile(r"\S+").findall

# Said around a question.
FRAMES = re.compile(
    r"^(?:hi|hello|hey|good (?:morning|afternoon))(?: all| team| there| everyone)?\b[\s,!.:-]+"
    r"|^(?:dear all|all|team|sorry|excuse me|ok|okay|so|well)\b[,!:][\s,!.:-]*"
    r"|^(?:quick|short|one|simple|just a|a) (?:more )?(?:quick )?question[\s,:.-]+"
    r"|^(?:please|pls|plz|kindly)\b[\s,:]*"
    r"|^(?:can|could|would|will) (?:you|someone|somebody|anyone|anybody) (?:please |pls |kindly |quickly )?"
    r"(?:tell|remind|inform|help|show) (?:me|us)(?: (?:about|of|understand|find out|with))?[\s,:]+"
    r"|^(?:can|could|would) (?:you|someone|somebody) (?:please )?(?:explain|say|confirm)(?: to me)?[\s,:]+"
    r"|^(?:please )?(?:tell|remind) (?:me|us)(?: (?:please|about))?[\s,:]+"
    r"|^(?:do|does|did) (?:you|anyone|anybody|someone|somebody)(?: here)? (?:happen to )?(?:know|remember)[\s,:]+"
    r"|^(?:i|we) (?:(?:would|'d) (?:like|love)|want|need|have|am trying|are trying) to (?:know|ask|find out"
    r"|understand|learn)[\s,:]+"
    r"|^(?:i|we) (?:am|are|was) (?:wondering|curious)(?: about)?[\s,:]+|^i wonder[\s,:]+|^i'm (?:wondering|curious)[\s,:]+"
    r"|^(?:i'm|i am|we are|we're) (?:looking|searching) for[\s,:]+|^(?:i |we )?need (?=the |our |which |what |how )"
    r"|^(?:any(?:one|body)? (?:idea|know)s?|wondering|asking)[\s,:]+"
    r"|^(?:explain|describe)[\s,:]+(?=why|how|what|when|which|where|who)"
    r"|^(?:according to|per|in|from) (?:our|the) (?:documents|documentation|docs|handbook|manual|knowledge base)[\s,:]+"
    r"|[\s,;.!?-]+(?:please|pls|plz|thanks?(?: you)?|thx|cheers|many thanks|thanks in advance)[\s!.?]*$",
    re.IGNORECASE,
)
_NOUN = r"(?:steps?|procedure|process|instructions?|way|method)"
_WE = r"(?:i|we|you|one)"
# In order: each works on what those before it have left, in lower case and without contractions.
REWRITES = tuple(
    (re.compile(rf"\b(?:{pattern})(?!\w)"), then)
    for pattern, then in (
        (rf"({_WE}) (?:phone|ring|dial|telephone|contact)", r"\1 call"),
        # how, why, when, who
        (rf"(?:what|which) steps (?:do|should|must|can) {_WE} (?:need to |have to )?(?:take|follow|perform|do)"
         r" (?:in order )?(?:to|for)", "howto"),
        (rf"(?:walk|guide|take|talk) (?:me|us) through|(?:show|tell|teach) (?:me|us) how to"
         rf"|^(?:the )?{_NOUN} (?:to|for)", "howto"),
        (r"is it (?:possible|ok|okay|allowed|permitted|fine)(?: for (?:me|us))? to", "may"), (r"why is it that", "why"),
        (r"^(?:list|name|enumerate) (?:the|our)", "what"), (r"which one of", "which of"),
        (rf"(?:what|which) (?:do|must|should|can) {_WE} (?:have to |need to )?do (?:in order )?to", "howto"),
        (rf"(?:what|which) (?:is|are) the (?:right |correct |usual |exact )?{_NOUN} (?:to|for|of)", "howto"),
        (rf"how (?:do|can|could|should|would|must|may) {_WE}(?: go about)?", "howto"),
        (r"how to|how (?:is|does) (?:it|this|that) (?:done|work)", "howto"),
        (r"(?:what|which) (?:is|are) the reasons? (?:that|why|for|of|behind)?|for (?:what|which) reason|how come", "why"),
        (r"(?:what|which) (?:was|were) the (?:root )?(?:reason|cause)s? (?:that|why|for|of|behind)?", "why did"),
        (r"(?:what|which) (?:made|caused|has caused)", "why did"),
        (r"what (?:is|are) (?:causing|the (?:root )?causes? (?:of|for|behind))", "why"),
        (r"(?:how frequently|(?:at|in) (?:what|which) intervals?|how many times)", "howoften"),
        (r"how often", "howoften"),
        (r"(?:for )?how much time|for how long|how long|for (?:what|which) (?:time|period|duration)", "howlong"),
        (r"(?:what|which) (?:is|was) the duration (?:of|for)", "howlong"),
        (r"how many|(?:what|which) number of|what is the count of", "howmany"),
        (r"how much", "howmuch"),
        (r"(?:on|at|by) (?:what|which) (?:date|day|time|point)|(?:what|which) (?:is|was) the (?:date"
         r"|day) (?:of|for)", "when"),
        (r"(?:by )?whom|(?:what|which) persons?", "who"),
        (r"(?:in|at) (?:what|which) places?", "where"),
        (r"^(?:give|show|tell) (?:me|us)", "what"),
        (r"(?:if|whenever|in case|while)", "when"),
        # must, may
        (r"(?:allowed|permitted|able) to", "may"),
        (r"(?:can|could) not", "may not"),
        (rf"(where) (?:can|could|do) {_WE}", r"\1"), (rf"(?<=\w )(?:should|do|does) {_WE}", ""),
        (r"(?:can|could|may|might)", "may"),
        (r"(?:have|has|had|need|needs|needed) to|(?:is|are) (?:required|obliged) to|shall|must", "must"),
        (r"(?:need|needs|needed|require|requires|required)", "must"),
        (r"(?:is|are )?going to|will|would", ""), (r"(?:is |are )?used to", ""),
        # words of several parts
        (r"fail(?:s|ed|ing|)[- ]over|failover", "failover"), (r"fail(?:s|ed|ing)? ((?:\S+ ){1,5})over", r"failover \1"),
        (r"take(s|n|)[- ]over|took over|taking over", "takeover"),
        (r"(?:turn|switch)(?:s|es|ed|ing)? on", "enable"), (r"(?:turn|switch)(?:s|es|ed|ing)? off", "disable"),
        (r"(?:log|sign)(?:s|ged|ed|ging|ing|)[- ]?(?:in|on)(?: to)?", "login"),
        (r"(?:log|sign)(?:s|ged|ed|ging|ing|) (?:out|off)(?= of|$|\?)", "logout"), (r"sign(?:s|ed|ing|)[- ]off", "approve"),
        (r"set(?:s|ting|)[- ]up", "configure"), (r"look(?:s|ed|ing|)[- ]up", "find"), (r"time(?:s|d|)[- ]out", "timeout"),
        (r"(?:get|gets|got|getting|work|works|worked|working)[- ](?:a?round)", "bypass"),
        (r"get(?:s|ting|)? rid of", "remove"),
        (r"on-call", "oncall"), (r"(?:what|which) (?:is|are) the values? (?:of|for)", "what"), (r"appl(?:y|ies) to", "of"),
        (r"gets? (\w{3,}ed)", r"is \1"), (r"by hand", "manually"), (r"because of|due to|owing to|on account of", "because"),
        (r"ask(?:s|ed|ing|) for", "request"),
        (r"takes? place|took place", "happen"), (r"stands? for", "means"), (r"both of", "both"),
        (r"hold[- ]?(?:timer|time)s?", "holdtime"),
        (r"what (?:is|are) the meaning of|meaning of", "what means"), (r"means?|meant", "means"),
        (r"in (?:what|which) way", "how"),
        (r"(?:built|build|builds) again", "rebuild"),
        (r"plugged (?:in)?to", "connected to"), (r"e-mail", "email"), (r"wi-fi", "wifi"),
        (r"data ?cent(?:er|re)s?", "datacentre"),
        (r"mac addresses|macs", "mac address"), (r"ip addresses", "ip address"), (r"external bgp", "ebgp"),
        (r"internal bgp", "ibgp"), (r"rx", "receive"), (r"tx", "transmit"),
        (r"(?:goes|go|went|gone) (down|up|out)", r"is \1"),
        (r"(is|are|be|been|being) (?:now |currently )?(?:configured|set|defined|assigned|applied|used)", r"\1 isset"),
        (r"(serial|phone|ticket|model|part|order) (?:no|nr|num)\.?", r"\1 number"), (r"changes? to", "change of"),
        (r"(?:is|are) (?:set|configured) to$", ""), (r"(?:at the moment|right now|at present|presently|nowadays)", ""),
        (r"(?:i|we) (?:get|got|see|saw|am getting|are getting|keep getting)", ""), (r"in order to", "to"),
        (r"in use", "use"),
        # the class before a name that tells it: error ERR-4711, interface ge-0/0/1
        (r"(?:error codes?|errors?|codes?|interface|port|router|switch|device|incident|ticket|rule|host|server)"
         r" ([a-z]{2,}[-_][\w./-]*\d)", r"\1"),
        (r"(january|february|march|april|may|june|july|august|september|october|november|december) "
         r"(\d{1,2})(?:st|nd|rd|th)?,? (\d{4})", r"\2 \1 \3"),
        (r"(\d+) ?(?:s|secs?)", r"\1 second"), (r"(\d+) ?(?:mins?)", r"\1 minute"), (r"(\d+) ?(?:h|hrs?)", r"\1 hour"),
        (r"(\d+) ?(?:percent|per cent|%)", r"\1 percent"),
    )
)  # fmt: skip

# Of no meaning of their own in a question.
DROPPED = frozenset(
    _split(
        "a an the this that these those our my your its i we you it they them there here is are be been being "
        "am do does "
        "of on in at for with between and about regarding concerning as please kindly exactly actually just really "
        "simply then "
        "so such also"
    )
)
# Likewise, where a question says enough without them: in questions of any form, or of one that is named
# (which: no other than what and which).
SOFT = {
    **dict.fromkeys(_split("currently isset"), ""),
    **dict.fromkeys(_split("use used using uses have has having"), "which"),
    **dict.fromkeys(_split("happen happens happened occur occurs occurred due"), "when why"),
    "find": "where",
}
# Between parts of a sentence that may change places.
PREPOSITIONS = frozenset(_split("on in at for of with between"))
JOINTS = PREPOSITIONS | frozenset(_split("and when because , what which"))
FORMS = frozenset(_split("why howto howoften howlong howmany howmuch how who where when means"))
# What follows one of these must follow it in the other question.
DIRECTIONS = frozenset(
    _split(
        "to from into onto by via through over under than before after against until since behind above below without "
        "instead "
        "except despite during within outside inside per off"
    )
)
ASKS_WHETHER = re.compile(
    r"(?:is|are|am|was|were|do|does|did|has|have|had|can|could|may|might|must|shall|should|will|would)\b"
)
# With one of these a word in -ed may be no past.
HELPING = frozenset(_split("is are am be been being was were has have had do does did may must isset"))
PASTS = frozenset(
    _split(
        "wrote took broke ran sent kept held began chose knew saw made built lost froze told stole hid bought forgot spoke "
        "found went came gave got left led met paid read sold set shut went won rebuilt drove taught"
    )
)
PAST = frozenset(_split("was were did had"))
MODALS = frozenset({"must", "may"})

# The first of a row stands for all of it; forms of `wording.inflect`.
_ROWS = """
fix solve resolve repair remedy rectify|remove delete|start begin commence began begun|stop halt|allow permit let
forbid prohibit disallow forbidden|wrong incorrect|maximum max maximal|minimum min minimal|average avg
configuration config cfg conf|password passwd pwd pw|account acct|address addr|interface intf iface
neighbour neighbor nbr peer|firewall fw|router rtr|switch sw|server srv|vulnerability vuln|application app|document doc
documentation docs|administrator admin|database db|environment env|production prod|information info|email mail
company firm|takeover acquire buy purchase bought|location place|close closure|announce announcement|approve approval
bypass circumvent evade|attacker intruder hacker|replace exchange swap replacement|id identifier|different distinct
freeze froze frozen|hold held|keep kept|lose lost|send sent|write wrote written|choose chose chosen select|break broke broken
run ran|forget forgot forgotten|show shown display|know knew known|rebuild rebuilt|connect attach|often frequent
quick fast|large big|talk speak communicate spoke|enable activate|disable deactivate|check verify|increase raise
decrease reduce|change modify alter|restart reboot|manual manually|temporary temporarily|automatic automatically|find found
two 2|three 3|four 4|five 5|six 6|seven 7|eight 8|nine 9|ten 10|first 1st|second 2nd|third 3rd|session sess
authentication auth|management mgmt|optic transceiver|laptop notebook|primary pri|number num nr|version ver|certificate cert
repository repo|problem issue trouble|receive recv rcv|transmit xmit|topology topo|build built|gateway gw|make made
see saw seen|take took taken|steal stole stolen|hide hid hidden|tell told|client clients|limit limitation
"""
SYNONYMS = {word: row.split()[0] for row in _ROWS.replace("\n", "|").split("|") for word in row.split()}
