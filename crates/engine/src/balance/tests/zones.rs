//! Own zone first, and when the others are used.

use super::*;

fn zoned(percent: u32) -> Balancer<&'static str> {
    let config = Balance {
        zone: Some(ZonePreference {
            spill_over_below_percent: percent,
        }),
        ..Balance::default()
    };
    let mut balancer = Balancer::new(&config, None);
    let near = |key| (key, facts(10_000));
    let far = |key| {
        let facts = Facts {
            near: false,
            ..Facts::default()
        };
        (key, facts)
    };
    balancer.update(
        0,
        [
            near("n1"),
            near("n2"),
            near("n3"),
            near("n4"),
            far("f1"),
            far("f2"),
        ],
    );
    balancer
}

fn used(balancer: &mut Balancer<&'static str>) -> String {
    let shares = at_rest(balancer, 0, Choice::default());
    shares.into_keys().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_own_zone_takes_all_until_too_few_of_it_are_ready() {
    let mut balancer = zoned(50);
    assert_eq!(used(&mut balancer), "n1 n2 n3 n4");

    for (down, expected) in [
        ("n1", "n2 n3 n4"),
        ("n2", "n3 n4"),
        ("n3", "f1 f2 n4"),
        ("n4", "f1 f2"),
    ] {
        let id = balancer.id(&down).unwrap();
        balancer.set_ready(id, false);
        assert_eq!(used(&mut balancer), expected, "without {down}");
    }

    let n1 = balancer.id(&"n1").unwrap();
    balancer.set_ready(n1, true);
    assert_eq!(used(&mut balancer), "f1 f2 n1");
}

#[test]
fn a_second_try_leaves_the_zone_when_the_zone_has_no_other() {
    let mut balancer = zoned(1);
    for down in ["n2", "n3", "n4"] {
        let id = balancer.id(&down).unwrap();
        balancer.set_ready(id, false);
    }
    assert_eq!(used(&mut balancer), "n1");
    let not = balancer.id(&"n1");

    let shares = at_rest(&mut balancer, 0, Choice { key: None, not });

    assert_eq!(shares.into_keys().collect::<Vec<_>>(), ["f1", "f2"]);
}

#[test]
fn without_any_endpoint_in_the_zone_all_others_serve() {
    let mut balancer = zoned(50);
    for gone in ["n1", "n2", "n3", "n4"] {
        let id = balancer.id(&gone).unwrap();
        balancer.remove(id);
    }
    assert_eq!(used(&mut balancer), "f1 f2");
}

#[test]
fn an_endpoint_may_move_to_another_zone() {
    let mut balancer = zoned(50);
    let f1 = balancer.id(&"f1").unwrap();
    balancer.set_facts(f1, facts(10_000));
    assert_eq!(used(&mut balancer), "f1 n1 n2 n3 n4");
}
