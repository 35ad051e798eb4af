//! Patches that are right and wrong.

use super::*;
use crate::op::UnaryOp;
use crate::prelude::*;

/// A chain of `n` square roots: the DAG and the nodes.
fn chain(n: usize) -> (Dag, Vec<NodeIndex>) {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>();
    (0..n).fold(x, |x, _| x.sqrt()).retrieve();
    let dag = cx.inspect(Dag::clone);
    let order = dag.topological().expect("recorded graphs have no cycle");
    (dag, order)
}

fn error(patch: Patch, dag: &mut Dag) -> String {
    patch.apply(dag).expect_err("a wrong patch").to_string()
}

#[test]
fn chains_of_replacements_are_followed_to_their_end() {
    let n = if cfg!(miri) { 20 } else { 2000 };
    let (mut dag, order) = chain(n);
    let mut patch = Patch::new();
    for pair in order.windows(2).skip(1) {
        patch.replace_with(&dag, pair[1], NodeRef::Old(pair[0]));
    }
    patch.apply(&mut dag).expect("a right patch");
    let kept = dag.kept_nodes();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [order[1]]);
    assert_eq!(dag.readers(order[1]).count(), n - 1);
}

#[test]
fn circles_and_repetitions_are_refused() {
    let (mut dag, order) = chain(3);
    let mut circle = Patch::new();
    circle.replace_with(&dag, order[1], NodeRef::Old(order[2]));
    circle.replace_with(&dag, order[2], NodeRef::Old(order[1]));
    assert!(error(circle, &mut dag).contains("in a circle"));
    let mut itself = Patch::new();
    itself.replace_with(&dag, order[1], NodeRef::Old(order[1]));
    assert!(error(itself, &mut dag).contains("in a circle"));
    let mut twice = Patch::new();
    twice.replace_with(&dag, order[2], NodeRef::Old(order[1]));
    twice.replace_with(&dag, order[2], NodeRef::Old(order[0]));
    assert!(error(twice, &mut dag).contains("twice"));
}

#[test]
fn only_unread_nodes_that_are_there_can_be_removed() {
    let (mut dag, order) = chain(3);
    let mut read = Patch::new();
    read.remove(order[1]);
    assert!(error(read, &mut dag).contains("reads it"));
    let mut all = Patch::new();
    order[1..].iter().for_each(|&id| all.remove(id));
    all.apply(&mut dag).expect("nothing else reads them");
    assert_eq!(dag.ids().collect::<Vec<_>>(), [order[0]]);
    assert!(
        dag.values()
            .filter(|(_, entry)| entry.source.is_some())
            .count()
            == 1
    );
    let mut gone = Patch::new();
    gone.remove(order[1]);
    assert!(error(gone, &mut dag).contains("not there"));
}

/// What the driver keeps of every stage costs a pointer for a node.
#[test]
fn a_copy_shares_what_stays_and_keeps_what_changes() {
    let (mut dag, order) = chain(4);
    let before = dag.clone();
    dag.set_name(order[1], "named");
    let mut patch = Patch::new();
    patch.replace_with(&dag, order[3], NodeRef::Old(order[2]));
    patch.apply(&mut dag).expect("a right patch");
    let shares = |id: NodeIndex| Arc::ptr_eq(&before.nodes[id], &dag.nodes[id]);
    let shared = order.iter().map(|&id| shares(id));
    assert_eq!(shared.collect::<Vec<_>>(), [true, false, true, true, true]);
    let view = |dag: &Dag, id: NodeIndex| {
        let mut edges = dag.nodes.edges_directed(id, Direction::Incoming);
        edges
            .next()
            .expect("it has an operand")
            .weight()
            .view
            .clone()
    };
    assert!(Arc::ptr_eq(&view(&before, order[4]), &view(&dag, order[4])));
    assert_eq!(before.node(order[1]).name, None);
    assert_eq!(dag.node(order[1]).name.as_deref(), Some("named"));
    // The last root reads another one now, in the graph that was changed only.
    let operand = |dag: &Dag| dag.operands(order[4])[0].0;
    assert_eq!([operand(&before), operand(&dag)], [order[3], order[2]]);
}

#[test]
fn only_inputs_change_their_format() {
    let (mut dag, order) = chain(1);
    for (node, dtype) in [(order[1], DType::BF16), (order[0], DType::I32)] {
        let mut patch = Patch::new();
        patch.store(node, dtype);
        assert!(error(patch, &mut dag).contains("only floating-point inputs"));
    }
    let mut patch = Patch::new();
    patch.store(order[0], DType::BF16);
    assert_eq!(
        patch.stored(&dag),
        [(0, DType::F32, StoredAs::Format(DType::BF16))]
    );
    patch.apply(&mut dag).expect("a right patch");
    crate::graph::verify(&dag).expect("a right graph");
    let (cast, _) = dag.operands(order[1])[0];
    assert_eq!(dag.node(cast).op, Op::Cast(DType::F32));
    assert_eq!(dag.operands(cast)[0].0, order[0]);
}

#[test]
fn a_patch_reads_its_own_new_nodes() {
    let (dag, order) = chain(2);
    let mut patch = Patch::new();
    let op = Op::Unary(UnaryOp::Recip);
    let operands = vec![(NodeRef::Old(order[0]), View::contiguous(2))];
    let new = patch.add(&dag, op.clone(), operands.clone(), order[1]);
    let new = new.expect("recip takes one operand");
    assert_eq!(*patch.op(&dag, new), op);
    assert_eq!(patch.new_operands(0), operands);
    assert!(patch.is_empty(), "an unused new node changes nothing");
}

#[test]
fn an_operand_is_exchanged_for_one_of_its_type_that_comes_late() {
    let (mut dag, order) = chain(3);
    let again = |patch: &mut Patch, dag: &Dag| {
        let operands = vec![(NodeRef::Old(order[0]), View::contiguous(2))];
        let op = dag.node(order[1]).op.clone();
        let node = patch.add_late(dag, op, operands, order[1]);
        node.expect("it is what is there")
    };
    let mut missing = Patch::new();
    let node = again(&mut missing, &dag);
    missing.reroute(order[2], 1, node);
    assert!(error(missing, &mut dag).contains("another operand 1"));
    let mut patch = Patch::new();
    let nodes = [again(&mut patch, &dag), again(&mut patch, &dag)];
    patch.reroute(order[2], 0, nodes[0]);
    patch.reroute(order[3], 0, nodes[1]);
    assert_eq!(patch.len(), 2);
    patch.apply(&mut dag).expect("a right patch");
    crate::graph::verify(&dag).expect("a right graph");
    let late = [order[2], order[3]].map(|reader| dag.operands(reader)[0].0);
    let turns = late.map(|node| dag.node(node).turn);
    assert!(
        matches!(turns, [Turn::Late(a), Turn::Late(b)] if a != b),
        "{turns:?}"
    );
    assert_eq!(dag.readers(order[1]).count(), 0);
}

#[test]
fn nodes_take_the_turn_of_what_they_replace_or_come_last() {
    let (dag, order) = chain(3);
    let turns_of_new = |patch: Patch| {
        let (mut dag, mut patch) = (dag.clone(), patch);
        let operands = vec![(NodeRef::Old(order[0]), View::contiguous(2))];
        let op = dag.node(order[1]).op.clone();
        let new = patch.add(&dag, op, operands, order[1]);
        patch.expose(new.expect("it is what is there"), View::contiguous(2));
        let (_, ids) = patch.apply_numbered(&mut dag).expect("a right patch");
        dag.node(ids[0]).turn
    };
    assert_eq!(turns_of_new(Patch::new()), dag.node(order[1]).turn);
    assert_eq!(turns_of_new(Patch::new().appending()), Turn::Recorded(4));
}
