//! [`PolicyView`]: a policy as an operator sees it, in the field's terms.

use culvert_xfrm::Attributes;
use culvert_xfrm::policy::Action;
use culvert_xfrm::policy::Direction;
use culvert_xfrm::policy::PolicyInfo;
use culvert_xfrm::policy::Template;
use serde::Serialize;

use super::view;
use super::view::MarkView;
use super::view::SelectorView;

/// A policy.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PolicyView {
    index: u32,
    direction: String,
    priority: u32,
    action: String,
    #[serde(flatten)]
    selector: SelectorView,
    if_id: u32,
    mark: Option<MarkView>,
    templates: Vec<TemplateView>,
    added: u64,
    last_used: Option<u64>,
}

/// An SA that a policy asks for.
#[derive(Clone, Debug, Serialize)]
struct TemplateView {
    protocol: String,
    mode: String,
    source: String,
    destination: String,
    spi: Option<String>,
    reqid: u32,
    optional: bool,
}

impl TemplateView {
    fn new(template: &Template) -> TemplateView {
        let spi = template.id.spi.0;
        TemplateView {
            protocol: view::protocol(template.id.proto),
            mode: view::mode(template.mode),
            source: view::address(template.saddr, template.family),
            destination: view::address(template.id.daddr, template.family),
            spi: (spi != 0).then(|| view::spi(spi)),
            reqid: template.reqid,
            optional: template.optional != 0,
        }
    }

    fn words(&self) -> String {
        let TemplateView { protocol, mode, source, destination, reqid, .. } = self;
        let mut words = format!("{protocol} {mode} {source} > {destination} reqid {reqid}");
        if let Some(spi) = &self.spi {
            words += &format!(" spi {spi}");
        }
        if self.optional {
            words += " level use";
        }
        words
    }
}

/// A direction as `ip xfrm` has it.
pub(super) fn direction(direction: Direction) -> String {
    match direction {
        Direction::IN => "in".to_owned(),
        Direction::OUT => "out".to_owned(),
        Direction::FORWARD => "fwd".to_owned(),
        Direction(number) => number.to_string(),
    }
}

impl PolicyView {
    pub(super) fn new(info: &PolicyInfo, attributes: &Attributes) -> PolicyView {
        let templates = attributes.templates().map(Vec::as_slice).unwrap_or_default();
        PolicyView {
            index: info.index,
            direction: direction(info.dir),
            priority: info.priority,
            action: match (info.action, templates) {
                (Action::ALLOW, []) => "bypass".to_owned(),
                (Action::ALLOW, _) => "protect".to_owned(),
                (Action::BLOCK, _) => "discard".to_owned(),
                (Action(number), _) => number.to_string(),
            },
            selector: SelectorView::new(&info.sel),
            if_id: attributes.if_id().copied().unwrap_or(0),
            mark: MarkView::of(attributes),
            templates: templates.iter().map(TemplateView::new).collect(),
            added: info.usage.add_time,
            last_used: Some(info.usage.use_time).filter(|&at| at != 0),
        }
    }

    /// Its direction and selector.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.direction, self.selector.words())
    }

    /// Headings of [`PolicyView::row`].
    pub(super) const HEADINGS: [&str; 6] =
        ["INDEX", "DIR", "PRIORITY", "ACTION", "SELECTOR", "TEMPLATES"];

    /// One line of a table.
    pub(super) fn row(&self) -> Vec<String> {
        let mut selector = self.selector.words();
        if self.if_id != 0 {
            selector += &format!(" if_id {}", self.if_id);
        }
        if let Some(mark) = self.mark {
            selector += &format!(" mark {}", mark.words());
        }
        let templates: Vec<String> = self.templates.iter().map(TemplateView::words).collect();
        let templates = if templates.is_empty() { "-".to_owned() } else { templates.join(", ") };
        vec![
            self.index.to_string(),
            self.direction.clone(),
            self.priority.to_string(),
            self.action.clone(),
            selector,
            templates,
        ]
    }
}
