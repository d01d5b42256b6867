//! Profiles: named rules for the top level of a request.
//!
//! What belongs here: which fields never reach the model, which values are a provider's documented default,
//! and below which paths the order of keys is shown to the model. A field without a rule counts.
//! Documented in `docs/reference/fingerprint.md`; a change of a rule is a change of the format version.

/// What a rule asks of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The field never reaches the model; the name says why.
    Drop(&'static str),
    /// The field is left out when it has this value.
    Default(Constant),
    /// The field is left out when it has this value or is null.
    DefaultOrNull(Constant),
    /// The field is left out when it is null.
    Nullable,
}

/// A documented default value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant {
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(&'static str),
}

/// Where in a request the order of keys counts.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Everything from here on.
    Keep,
    /// In each item of an array.
    Each(&'static Order),
    /// In the value of one of these keys.
    Keys(&'static [(&'static str, Order)]),
}

type Field = (&'static str, Rule);

/// A named set of rules.
#[derive(Debug)]
pub struct Profile {
    /// The name, part of every document.
    pub name: &'static str,
    /// At most one rule a field.
    pub fields: &'static [Field],
    /// The paths whose order counts, from the top level.
    pub order: Order,
    /// One bit for each field that has a rule (`bit`): most fields have none and are through after one test.
    ruled: u128,
}

const fn bit(field: &[u8]) -> u128 {
    if field.is_empty() {
        0
    } else {
        1 << ((field.len() + 5 * field[0] as usize) % 128)
    }
}

impl Profile {
    const fn new(name: &'static str, fields: &'static [Field], order: Order) -> Self {
        let (mut ruled, mut index) = (0, 0);
        while index < fields.len() {
            ruled |= bit(fields[index].0.as_bytes());
            index += 1;
        }
        Self {
            name,
            fields,
            order,
            ruled,
        }
    }

    /// The rule for a field of the top level.
    #[inline]
    pub fn rule(&self, field: &[u8]) -> Option<Rule> {
        if self.ruled & bit(field) == 0 {
            return None;
        }
        self.fields
            .iter()
            .find(|(name, _)| name.as_bytes() == field)
            .map(|&(_, rule)| rule)
    }

    /// The profile of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES
            .iter()
            .copied()
            .find(|profile| profile.name == name)
    }
}

const fn drop(field: &'static str, why: &'static str) -> Field {
    (field, Rule::Drop(why))
}

const fn default(field: &'static str, value: Constant) -> Field {
    (field, Rule::Default(value))
}

const fn default_or_null(field: &'static str, value: Constant) -> Field {
    (field, Rule::DefaultOrNull(value))
}

const fn nullable(field: &'static str) -> Field {
    (field, Rule::Nullable)
}

/// All profiles.
pub static PROFILES: &[&Profile] = &[
    &GENERIC,
    &OPENAI_CHAT,
    &OPENAI_RESPONSES,
    &ANTHROPIC_MESSAGES,
];

/// Any mapping: only what every SDK keeps to itself is dropped.
pub static GENERIC: Profile = Profile::new(
    "generic",
    &[
        drop("stream", "transport"),
        drop("stream_options", "transport"),
        drop("timeout", "transport"),
        drop("extra_headers", "transport"),
        drop("max_retries", "transport"),
    ],
    Order::Keys(&[]),
);

/// `POST /v1/chat/completions`.
pub static OPENAI_CHAT: Profile = Profile::new(
    "openai.chat",
    &[
        drop("stream", "transport"),
        drop("stream_options", "transport"),
        drop("timeout", "transport"),
        drop("extra_headers", "transport"),
        drop("max_retries", "transport"),
        drop("prompt_cache_key", "provider-cache"),
        drop("prompt_cache_retention", "provider-cache"),
        default_or_null("temperature", Constant::Number(1.0)),
        default_or_null("top_p", Constant::Number(1.0)),
        default_or_null("n", Constant::Number(1.0)),
        default_or_null("presence_penalty", Constant::Number(0.0)),
        default_or_null("frequency_penalty", Constant::Number(0.0)),
        default_or_null("logprobs", Constant::Bool(false)),
        default("parallel_tool_calls", Constant::Bool(true)),
        default_or_null("verbosity", Constant::Text("medium")),
        default_or_null("service_tier", Constant::Text("auto")),
        nullable("audio"),
        nullable("logit_bias"),
        nullable("max_completion_tokens"),
        nullable("max_tokens"),
        nullable("metadata"),
        nullable("prediction"),
        nullable("seed"),
        nullable("stop"),
        nullable("top_logprobs"),
    ],
    Order::Keys(&[
        (
            "tools",
            Order::Each(&Order::Keys(&[(
                "function",
                Order::Keys(&[("parameters", Order::Keep)]),
            )])),
        ),
        (
            "functions",
            Order::Each(&Order::Keys(&[("parameters", Order::Keep)])),
        ),
        (
            "response_format",
            Order::Keys(&[("json_schema", Order::Keys(&[("schema", Order::Keep)]))]),
        ),
    ]),
);

/// `POST /v1/responses`.
pub static OPENAI_RESPONSES: Profile = Profile::new(
    "openai.responses",
    &[
        drop("stream", "transport"),
        drop("stream_options", "transport"),
        drop("timeout", "transport"),
        drop("extra_headers", "transport"),
        drop("max_retries", "transport"),
        drop("prompt_cache_key", "provider-cache"),
        drop("prompt_cache_retention", "provider-cache"),
        default_or_null("temperature", Constant::Number(1.0)),
        default_or_null("top_p", Constant::Number(1.0)),
        default_or_null("parallel_tool_calls", Constant::Bool(true)),
        default_or_null("truncation", Constant::Text("disabled")),
        default_or_null("store", Constant::Bool(true)),
        default_or_null("background", Constant::Bool(false)),
        default_or_null("service_tier", Constant::Text("auto")),
        nullable("conversation"),
        nullable("include"),
        nullable("instructions"),
        nullable("max_output_tokens"),
        nullable("max_tool_calls"),
        nullable("metadata"),
        nullable("previous_response_id"),
        nullable("prompt"),
        nullable("reasoning"),
        nullable("top_logprobs"),
    ],
    Order::Keys(&[
        (
            "tools",
            Order::Each(&Order::Keys(&[
                ("parameters", Order::Keep),
                ("output_schema", Order::Keep),
                (
                    "tools",
                    Order::Each(&Order::Keys(&[
                        ("parameters", Order::Keep),
                        ("output_schema", Order::Keep),
                    ])),
                ),
            ])),
        ),
        (
            "input",
            Order::Each(&Order::Keys(&[(
                "tools",
                Order::Each(&Order::Keys(&[
                    ("parameters", Order::Keep),
                    ("output_schema", Order::Keep),
                    (
                        "tools",
                        Order::Each(&Order::Keys(&[
                            ("parameters", Order::Keep),
                            ("output_schema", Order::Keep),
                        ])),
                    ),
                ])),
            )])),
        ),
        (
            "text",
            Order::Keys(&[("format", Order::Keys(&[("schema", Order::Keep)]))]),
        ),
    ]),
);

/// `POST /v1/messages`.
pub static ANTHROPIC_MESSAGES: Profile = Profile::new(
    "anthropic.messages",
    &[
        drop("stream", "transport"),
        drop("stream_options", "transport"),
        drop("timeout", "transport"),
        drop("extra_headers", "transport"),
        drop("max_retries", "transport"),
        default("temperature", Constant::Number(1.0)),
        default("service_tier", Constant::Text("auto")),
        nullable("cache_control"),
        nullable("container"),
        nullable("inference_geo"),
        nullable("speed"),
    ],
    Order::Keys(&[
        (
            "tools",
            Order::Each(&Order::Keys(&[
                ("input_schema", Order::Keep),
                ("input_examples", Order::Keep),
            ])),
        ),
        (
            "output_config",
            Order::Keys(&[("format", Order::Keys(&[("schema", Order::Keep)]))]),
        ),
        ("output_format", Order::Keys(&[("schema", Order::Keep)])),
        (
            "messages",
            Order::Each(&Order::Keys(&[(
                "content",
                Order::Each(&Order::Keys(&[("input", Order::Keep)])),
            )])),
        ),
    ]),
);
