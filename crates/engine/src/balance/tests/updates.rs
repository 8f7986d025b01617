//! Endpoints that come, go and change: agreement with a plain set, and what a change costs.

use std::cell::Cell;
use std::hash::Hasher;
use std::rc::Rc;

use super::*;

#[test]
fn an_endpoint_that_stays_keeps_its_load_and_one_that_comes_back_begins_anew() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    let a = balancer.id(&"a").unwrap();
    let load = |balancer: &Balancer<&str>, id: EndpointId| {
        balancer.members.get(id).unwrap().load.at(500 * MS)
    };
    balancer.on_first_response(Picked { id: a, probe: 0 }, 0, 500 * MS);

    let diff = balancer.update(500 * MS, [("a", facts(1)), ("c", facts(1))]);
    assert_eq!((diff.added.len(), diff.removed.len()), (1, 1));
    assert_eq!(balancer.id(&"a"), Some(a));
    assert_eq!(load(&balancer, a), 500e6);

    balancer.update(500 * MS, [("c", facts(1))]);
    balancer.update(500 * MS, [("c", facts(1)), ("a", facts(1))]);
    let again = balancer.id(&"a").unwrap();
    assert_ne!(again, a);
    assert_eq!(load(&balancer, again), 30e6);
}

#[test]
fn what_ends_after_its_endpoint_is_gone_harms_nobody() {
    let mut balancer = balancer(&[("a", 1)]);
    let a = pick(&mut balancer, 0, 1).unwrap();
    balancer.update(0, [("b", facts(1))]);
    let b = balancer.id(&"b").unwrap();
    pick(&mut balancer, 0, 2).unwrap();

    balancer.on_first_response(a, 0, 9000 * MS);
    balancer.on_end(a, 9000 * MS);
    balancer.set_ready(a.id, false);

    assert_eq!(balancer.pending(b), 1);
    assert_eq!(balancer.key(a.id), None);
    assert_eq!(pick(&mut balancer, 0, 3).unwrap().id, b);
}

/// A key that counts how often it is looked at.
#[derive(Clone, Debug)]
struct Counted(u32, Rc<Cell<u64>>);

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.1.set(self.1.get() + 1);
        self.0 == other.0
    }
}

impl Eq for Counted {}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.1.set(self.1.get() + 1);
        self.0.hash(state);
    }
}

#[test]
fn a_change_of_one_endpoint_looks_at_no_other() {
    let looked = Rc::new(Cell::new(0));
    let mut costs = Vec::new();
    for count in [10_u32, 10_000] {
        let hashing = ConsistentHash {
            key: HashKey::SourceAddress,
            load_bound: 1.25,
        };
        let config = Balance {
            hash: Some(hashing),
            ..Balance::default()
        };
        let mut balancer = Balancer::new(&config, None);
        let key = |number| Counted(number, looked.clone());
        balancer.update(0, (0..count).map(|number| (key(number), Facts::default())));
        looked.set(0);
        let id = balancer.insert(0, key(count), Facts::default());
        balancer.set_facts(id, facts(20_000));
        balancer.set_ready(id, false);
        balancer.set_ready(id, true);
        balancer.remove(id);
        costs.push(looked.get());
        assert_eq!(balancer.len(), count as usize);
    }
    assert!(
        costs[1] <= costs[0] + 4,
        "looks at keys with 10 and with 10,000 endpoints: {costs:?}"
    );
}

proptest! {
    /// The balancer's members and those in the draw are those of a plain set, whatever happens in whatever order.
    #[test]
    fn updates_and_readiness_agree_with_a_plain_set(
        steps in proptest::collection::vec(
            prop_oneof![
                proptest::collection::btree_map(0_u8..12, 0_u32..4, 0..8).prop_map(Step::Update),
                (0_u8..12, any::<bool>()).prop_map(|(key, ready)| Step::Ready(key, ready)),
                (0_u8..12, 0_u32..4).prop_map(|(key, weight)| Step::Insert(key, weight)),
                (0_u8..12, 0_u32..4).prop_map(|(key, weight)| Step::Weigh(key, weight)),
                (0_u8..12).prop_map(Step::Remove),
            ],
            1..60,
        ),
        random in any::<u64>(),
    ) {
        let mut balancer = Balancer::new(&Balance::default(), None);
        let mut members: BTreeMap<u8, (u32, bool)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Update(endpoints) => {
                    let added: Vec<_> = endpoints.keys().filter(|key| !members.contains_key(key)).copied().collect();
                    let before = members.len();
                    members.retain(|key, _| endpoints.contains_key(key));
                    let removed = before - members.len();
                    for (key, weight) in &endpoints {
                        members.entry(*key).or_insert((0, true)).0 = *weight;
                    }
                    let diff = balancer.update(0, endpoints.into_iter().map(|(key, weight)| (key, facts(weight))));
                    let keys: Vec<_> = diff.added.iter().map(|id| *balancer.key(*id).unwrap()).collect();
                    prop_assert_eq!(keys, added);
                    prop_assert_eq!(diff.removed.len(), removed);
                }
                Step::Ready(key, ready) => {
                    if let Some(id) = balancer.id(&key) {
                        balancer.set_ready(id, ready);
                        members.get_mut(&key).unwrap().1 = ready;
                    }
                }
                Step::Insert(key, weight) => {
                    balancer.insert(0, key, facts(weight));
                    members.insert(key, (weight, true));
                }
                Step::Weigh(key, weight) => {
                    if let Some(id) = balancer.id(&key) {
                        balancer.set_facts(id, facts(weight));
                        members.get_mut(&key).unwrap().0 = weight;
                    }
                }
                Step::Remove(key) => {
                    if let Some(id) = balancer.id(&key) {
                        balancer.remove(id);
                        members.remove(&key);
                    }
                }
            }
            let ready: BTreeMap<_, _> = members.iter().filter(|(_, (_, ready))| *ready).map(|(key, (weight, _))| (*key, *weight)).collect();
            let found: BTreeMap<_, _> = balancer.near.entries().iter().map(|entry| (*balancer.key(entry.id).unwrap(), entry.weight)).collect();
            prop_assert_eq!(&found, &ready);
            prop_assert_eq!(balancer.len(), members.len());
            let picked = pick(&mut balancer, 0, random);
            let key = picked.map(|picked| *balancer.key(picked.id).unwrap());
            prop_assert_eq!(picked.is_some(), !ready.is_empty());
            prop_assert!(key.is_none_or(|key| ready.contains_key(&key)));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Update(BTreeMap<u8, u32>),
    Ready(u8, bool),
    Insert(u8, u32),
    Weigh(u8, u32),
    Remove(u8),
}
