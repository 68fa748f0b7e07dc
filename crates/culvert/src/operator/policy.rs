//! `culvert policy`: policies listed, added and deleted.

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use clap::ValueEnum;
use culvert_xfrm::Attribute;
use culvert_xfrm::Attributes;
use culvert_xfrm::Body;
use culvert_xfrm::lifetime::Limits;
use culvert_xfrm::policy;
use culvert_xfrm::policy::PolicyId;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;

use super::Reach;
use super::client::ClientError;
use super::given;
use super::given::ScopeArgs;
use super::given::SelectorArgs;
use super::policy_view::PolicyView;
use super::table::table;

/// Which packets a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Direction {
    /// Those that leave.
    Out,
    /// Those for this machine.
    In,
    /// Those that came in and go on.
    Fwd,
}

/// What becomes of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// They go through the SAs of the templates.
    Protect,
    /// They pass in clear.
    Bypass,
    /// They are dropped.
    Discard,
}

impl Direction {
    fn xfrm(self) -> policy::Direction {
        match self {
            Direction::Out => policy::Direction::OUT,
            Direction::In => policy::Direction::IN,
            Direction::Fwd => policy::Direction::FORWARD,
        }
    }
}

/// Arguments of `culvert policy add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Which packets it looks at.
    #[arg(long, value_enum)]
    direction: Direction,
    #[command(flatten)]
    selector: SelectorArgs,
    /// The lowest comes first.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    priority: u32,
    /// What becomes of packets; `protect` when absent.
    #[arg(long, value_enum, default_value_t = Action::Protect)]
    action: Action,
    /// An SA that packets go through, in the words of `ip xfrm`: src, dst, proto, mode, reqid, spi,
    /// level. Several are applied in their order.
    #[arg(long, value_name = "WORDS", value_parser = given::template)]
    template: Vec<Template>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    reach: Reach,
}

/// Arguments of `culvert policy delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Which packets it looks at.
    #[arg(long, value_enum)]
    direction: Direction,
    /// Its number in the listing, in place of a selector.
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    #[command(flatten)]
    selector: SelectorArgs,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    reach: Reach,
}

/// `culvert policy list`.
pub(super) fn list(reach: &Reach) -> anyhow::Result<()> {
    let mut policies = Vec::new();
    let mut odd = false;
    reach.connect()?.list(Body::DumpPolicy(Attributes::default()), |body| match body {
        Body::NewPolicy(info, list) => policies.push(PolicyView::new(&info, &list)),
        _ => odd = true,
    })?;
    if odd {
        return Err(ClientError::Odd("no listing of policies").into());
    }
    reach.print(&policies, || {
        let rows: Vec<Vec<String>> = policies.iter().map(PolicyView::row).collect();
        table(&PolicyView::HEADINGS, &rows)
    })
}

/// `culvert policy add`.
pub(super) fn add(args: &AddArgs) -> anyhow::Result<()> {
    let AddArgs { direction, priority, action, template, .. } = args;
    let selector = args.selector.selector()?;
    let sel = selector.context("which packets: expected --source and --destination")?;
    let action = match (action, template.as_slice()) {
        (Action::Protect, []) => bail!("--action protect: expected a --template for it"),
        (Action::Protect, _) => policy::Action::ALLOW,
        (Action::Bypass | Action::Discard, [_, ..]) => {
            bail!("--template: expected none, for packets go through no SA")
        }
        (Action::Bypass, []) => policy::Action::ALLOW,
        (Action::Discard, []) => policy::Action::BLOCK,
    };
    let info = PolicyInfo {
        sel,
        limits: Limits::UNLIMITED,
        priority: *priority,
        dir: direction.xfrm(),
        action,
        ..PolicyInfo::default()
    };
    let mut list = Vec::new();
    if !template.is_empty() {
        list.push(Attribute::Templates(template.clone()));
    }
    list.extend(args.scope.attributes());
    let list = Attributes(list);
    let view = PolicyView::new(&info, &list);
    args.reach.connect()?.ask(Body::NewPolicy(info, list))?;
    args.reach.print(&view, || format!("added {}\n", view.words()))
}

/// `culvert policy delete`.
pub(super) fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    let dir = args.direction.xfrm();
    let selector = args.selector.selector()?;
    let id = match (selector, args.index) {
        (Some(sel), None) => PolicyId { sel, index: 0, dir },
        (None, Some(index)) if index != 0 => PolicyId { index, dir, ..PolicyId::default() },
        _ => bail!("which policy: expected --source and --destination, or --index"),
    };
    let mut client = args.reach.connect()?;
    let list = Attributes(args.scope.attributes().collect());
    let shown = match client.ask(Body::GetPolicy(id, list.clone()))? {
        Some(Body::NewPolicy(info, list)) => PolicyView::new(&info, &list),
        _ => return Err(ClientError::Odd("no policy").into()),
    };
    client.ask(Body::DeletePolicy(id, list))?;
    args.reach.print(&shown, || format!("deleted {}\n", shown.words()))
}
