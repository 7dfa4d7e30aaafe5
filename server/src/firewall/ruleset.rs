//! The guard as typed JSON: what stands in the table `inet oneknock`, and why.

use super::names::{GRACE, GUARD, INPUT, KNOCK, PRIORITY, SELECTORS, SIEVE, TABLE, TRIAL};
use super::names::{cut_name, mark, seq_name, set_name};
use super::sequence;
use super::standing::Standing;
use crate::config::{Config, Network, Sequence, Service};
use nftables::batch::Batch;
use nftables::expr::{BinaryOperation, CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey};
use nftables::expr::{NamedExpression, Payload, PayloadField, Prefix, Range, SetItem, Verdict};
use nftables::schema::{Chain, Element, FlushObject, NfCmd, NfListObject, NfObject, Nftables};
use nftables::schema::{Rule, Set, SetFlag, SetType, SetTypeValue, Table};
use nftables::stmt::{Accept, Counter, Drop, JumpTarget, Match, Operator, Statement, VerdictMap};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use oneknock_shared::name::ServiceName;
use oneknock_shared::port::Transport;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

/// How long connections that are older than the guard may show themselves, in seconds.
const GRACE_SECONDS: u32 = 60;

/// What becomes of the table itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableIs {
    /// It is made where it is not there.
    Made,
    /// It is there, and what makes it what it is must not be touched: a script that
    /// declares a persistent table fails.
    There,
    /// It is there, and made anew, for what is in the way: every element is gone.
    Replaced,
}

/// How the guard is put up.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// What becomes of the table.
    pub table: TableIs,
    /// Whether connections that are older than the guard live on.
    pub grace: bool,
}

fn chain_name(service: ServiceName) -> String {
    format!("door-{service}")
}

/// The commands, one transaction, that make the table stand as these services want it,
/// whatever it held before: sets that stay keep their elements with the time that they
/// have left. With `grace`, connections that are older than the guard get a minute to
/// show themselves.
#[must_use]
pub fn ruleset(config: &Config, standing: &Standing, how: How) -> Nftables<'static> {
    let services = &config.services;
    let mut batch = Batch::new();
    if how.table == TableIs::Replaced {
        batch.delete(NfListObject::Table(table()));
    }
    if how.table != TableIs::There {
        batch.add(NfListObject::Table(table()));
    }
    batch.add(set(GRACE.into(), SetType::InetProto));
    if how.grace {
        batch.add(NfListObject::Element(grace_element()));
    }
    let mut sets = vec![GRACE.to_owned()];
    for (is_ipv6, address) in [(false, SetType::Ipv4Addr), (true, SetType::Ipv6Addr)] {
        let port = SetType::InetService;
        let parts = vec![address, SetType::InetProto, port, port];
        batch.add(set_of(
            cut_name(is_ipv6).into(),
            SetTypeValue::Concatenated(parts.into()),
            None,
        ));
        sets.push(cut_name(is_ipv6).to_owned());
    }
    if config.on_trial {
        batch.add(set(TRIAL.into(), SetType::InetProto));
        sets.push(TRIAL.to_owned());
    }
    let mut chains = vec![GUARD.to_owned(), INPUT.to_owned()];
    batch.add(NfListObject::Chain(base_chain(GUARD, NfHook::Prerouting)));
    batch.add(NfListObject::Chain(base_chain(INPUT, NfHook::Input)));
    let mark = mark(config.server_id);
    batch.add(NfListObject::Chain(chain(mark.clone())));
    chains.push(mark);
    for service in services {
        for (is_ipv6, kind) in [(false, SetType::Ipv4Addr), (true, SetType::Ipv6Addr)] {
            let name = set_name(service.name, is_ipv6);
            batch.add(set(name.clone(), kind));
            sets.push(name);
        }
        let name = chain_name(service.name);
        batch.add(NfListObject::Chain(chain(name.clone())));
        chains.push(name);
    }
    if let Some(sequence) = &config.sequence {
        for (is_ipv6, kind) in [(false, SetType::Ipv4Addr), (true, SetType::Ipv6Addr)] {
            let name = seq_name(sequence.service, is_ipv6);
            batch.add(set_of(
                name.clone(),
                SetTypeValue::Single(kind),
                Some(sequence::ADMITTED),
            ));
            sets.push(name);
        }
    }
    for name in &chains {
        flush(&mut batch, name.clone());
    }
    // The sieve and the sequence have scripts of their own.
    chains.extend([SIEVE.to_owned(), KNOCK.to_owned()]);
    sets.push(SELECTORS.to_owned());
    let parts = sequence::parts(config);
    if parts.stand_in(&standing.chains) {
        chains.extend(parts.chain_names().cloned());
        sets.extend(parts.set_names().cloned());
    }
    let gone = || standing.chains.iter().filter(|name| !chains.contains(name));
    for name in gone() {
        flush(&mut batch, name.clone());
    }
    for service in services {
        for statements in door(service, config.sequence.as_ref()) {
            batch.add(rule(chain_name(service.name), statements));
        }
    }
    batch.add(rule(GUARD.into(), elsewhere()));
    for base in [GUARD, INPUT] {
        for statements in guard(config) {
            batch.add(rule(base.into(), statements));
        }
    }
    for name in gone() {
        batch.delete(NfListObject::Chain(chain(name.clone())));
    }
    let mut commands = batch.to_nftables().objects.into_owned();
    for name in standing.sets.iter().filter(|name| !sets.contains(name)) {
        let gone = set(name.clone(), SetType::Ipv4Addr);
        commands.push(NfObject::CmdObject(NfCmd::Delete(gone)));
    }
    Nftables {
        objects: Cow::Owned(commands),
    }
}

/// A router goes on forwarding other hosts' ssh. Only unicast: broadcast, multicast and
/// anycast reach a socket here and are judged like local. What this takes for forwarded
/// although it is delivered here (a local route in another table) meets the other chain.
fn elsewhere() -> Vec<Statement<'static>> {
    let to = Fib {
        result: FibResult::Type,
        flags: HashSet::from([FibFlag::Daddr]),
    };
    let is_unicast = equal(NamedExpression::Fib(to).into_expr(), text("unicast"));
    vec![is_unicast, Statement::Accept(Some(Accept {}))]
}

/// What leads past the guard, in order, and then the doors.
fn guard(config: &Config) -> Vec<Vec<Statement<'static>>> {
    let accept = || Statement::Accept(Some(Accept {}));
    let flags = |wanted: &[&'static str]| {
        let wanted = wanted.iter().map(|f| text(f)).collect();
        let all = Expression::BinaryOperation(Box::new(BinaryOperation::OR(wanted)));
        let of = payload("tcp", "flags");
        Expression::BinaryOperation(Box::new(BinaryOperation::AND(of, all)))
    };
    let established = || equal(ct("state"), text("established"));
    let cut = |protocol: &'static str, is_ipv6| {
        let from = payload(protocol, "saddr");
        let ports = [payload("th", "sport"), payload("th", "dport")];
        let who = concat([vec![from, meta(MetaKey::L4proto)], ports.into()].concat());
        let drop = Statement::Drop(Some(Drop {}));
        vec![equal(who, text(&format!("@{}", cut_name(is_ipv6)))), drop]
    };
    let mut rules = Vec::new();
    if config.on_trial {
        let is_over = unequal(meta(MetaKey::L4proto), text(&format!("@{TRIAL}")));
        rules.push(vec![is_over, accept()]);
    }
    rules.push(vec![equal(meta(MetaKey::Iifname), text("lo")), accept()]);
    rules.extend(always(&config.always));
    rules.extend([
        cut("ip", false),
        cut("ip6", true),
        // Sessions live on when their grant has ended. A SYN begins a connection,
        // whatever connection tracking takes it for: an outsider's stray segment that
        // was answered with RST makes his next SYN "established".
        vec![
            established(),
            unequal(flags(&["syn", "ack"]), text("syn")),
            accept(),
        ],
        vec![
            established(),
            equal(meta(MetaKey::L4proto), text("udp")),
            accept(),
        ],
        // Sessions older than the guard, for its first minute: nothing that could begin
        // or end one.
        vec![
            equal(flags(&["syn", "rst"]), Expression::Number(0)),
            equal(meta(MetaKey::L4proto), text(&format!("@{GRACE}"))),
            accept(),
        ],
        vec![Statement::VerdictMap(VerdictMap {
            key: concat(vec![meta(MetaKey::L4proto), payload("th", "dport")]),
            data: NamedExpression::Set(doors(&config.services)).into_expr(),
        })],
    ]);
    rules
}

/// Who never needs to knock.
fn always(networks: &[Network]) -> Vec<Vec<Statement<'static>>> {
    let mut rules = Vec::new();
    for (protocol, is_ipv6) in [("ip", false), ("ip6", true)] {
        let mut items = Vec::new();
        for network in networks.iter().filter(|n| n.first().is_ipv6() == is_ipv6) {
            let prefix = Prefix {
                addr: Box::new(text(&network.first().to_string())),
                len: network.bits().into(),
            };
            let prefix = NamedExpression::Prefix(prefix).into_expr();
            items.push(SetItem::Element(prefix));
        }
        if !items.is_empty() {
            let among = NamedExpression::Set(items).into_expr();
            let is_one = equal(payload(protocol, "saddr"), among);
            rules.push(vec![is_one, Statement::Accept(Some(Accept {}))]);
        }
    }
    rules
}

fn doors(services: &[Service]) -> Vec<SetItem<'static>> {
    let mut items = Vec::new();
    for service in services {
        for ports in &service.ports {
            let first = Expression::Number(ports.first().into());
            let port = if ports.first() == ports.last() {
                first
            } else {
                let range = [first, Expression::Number(ports.last().into())];
                Expression::Range(Box::new(Range { range }))
            };
            let transport = match ports.transport() {
                Transport::Tcp => "tcp",
                Transport::Udp => "udp",
            };
            let target = chain_name(service.name).into();
            let jump = Expression::Verdict(Verdict::Jump(JumpTarget { target }));
            items.push(SetItem::Mapping(concat(vec![text(transport), port]), jump));
        }
    }
    items
}

/// A door: the admitted pass, the rest is dropped in silence.
fn door(service: &Service, sequence: Option<&Sequence>) -> Vec<Vec<Statement<'static>>> {
    let admitted = |protocol: &'static str, set: String| {
        vec![
            equal(payload(protocol, "saddr"), text(&format!("@{set}"))),
            Statement::Accept(Some(Accept {})),
        ]
    };
    let drop = vec![
        Statement::Counter(Counter::Anonymous(None)),
        Statement::Drop(Some(Drop {})),
    ];
    let mut rules = Vec::new();
    let opens = sequence.is_some_and(|s| s.service == service.name);
    let names: [Option<fn(_, _) -> String>; 2] = [Some(set_name), opens.then_some(seq_name)];
    for name in names.into_iter().flatten() {
        rules.push(admitted("ip", name(service.name, false)));
        rules.push(admitted("ip6", name(service.name, true)));
    }
    rules.push(drop);
    rules
}

fn table() -> Table<'static> {
    Table {
        family: NfFamily::INet,
        name: TABLE.into(),
        handle: None,
    }
}

fn chain(name: String) -> Chain<'static> {
    Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        ..Chain::default()
    }
}

fn base_chain(name: &str, hook: NfHook) -> Chain<'static> {
    Chain {
        _type: Some(NfChainType::Filter),
        hook: Some(hook),
        prio: Some(PRIORITY),
        policy: Some(NfChainPolicy::Accept),
        ..chain(name.into())
    }
}

fn set(name: String, kind: SetType) -> NfListObject<'static> {
    set_of(name, SetTypeValue::Single(kind), None)
}

fn set_of(
    name: String,
    set_type: SetTypeValue<'static>,
    size: Option<u32>,
) -> NfListObject<'static> {
    NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        set_type,
        flags: Some(HashSet::from([SetFlag::Timeout])),
        size,
        ..Set::default()
    }))
}

fn grace_element() -> Element<'static> {
    let elem = nftables::expr::Elem {
        val: Box::new(text("tcp")),
        timeout: Some(GRACE_SECONDS),
        comment: Some("connections older than the guard".into()),
        ..nftables::expr::Elem::default()
    };
    Element {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: GRACE.into(),
        elem: vec![NamedExpression::Elem(elem).into_expr()].into(),
    }
}

fn rule(chain: String, statements: Vec<Statement<'static>>) -> NfListObject<'static> {
    NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into(),
        ..Rule::default()
    })
}

fn flush(batch: &mut Batch<'static>, name: String) {
    batch.add_cmd(NfCmd::Flush(FlushObject::Chain(chain(name))));
}

trait IntoExpression {
    fn into_expr(self) -> Expression<'static>;
}

impl IntoExpression for NamedExpression<'static> {
    fn into_expr(self) -> Expression<'static> {
        Expression::Named(self)
    }
}

fn text(text: &str) -> Expression<'static> {
    Expression::String(text.to_owned().into())
}

fn meta(key: MetaKey) -> Expression<'static> {
    NamedExpression::Meta(Meta { key }).into_expr()
}

fn ct(key: &'static str) -> Expression<'static> {
    NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: None,
    })
    .into_expr()
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    };
    NamedExpression::Payload(Payload::PayloadField(field)).into_expr()
}

fn concat(parts: Vec<Expression<'static>>) -> Expression<'static> {
    NamedExpression::Concat(parts).into_expr()
}

fn equal(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::EQ,
    })
}

fn unequal(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match {
        left,
        right,
        op: Operator::NEQ,
    })
}

/// How many rules each chain has once the ruleset is loaded.
#[must_use]
pub fn counts(ruleset: &Nftables<'_>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for object in &*ruleset.objects {
        match object {
            NfObject::CmdObject(NfCmd::Add(NfListObject::Chain(chain))) => {
                counts.entry(chain.name.to_string()).or_insert(0);
            }
            NfObject::CmdObject(NfCmd::Add(NfListObject::Rule(rule))) => {
                *counts.entry(rule.chain.to_string()).or_insert(0) += 1;
            }
            _ => {}
        }
    }
    counts
}
