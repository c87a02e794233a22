//! What a controller holds that watches a large cluster.

use crate::{
    fleet::{Api, Controller, Fleet, Tokens},
    report::{Report, Row},
};

const PORT: u16 = 9881;

pub async fn run(quick: bool, report: &mut Report) {
    let sizes: &[(usize, usize)] =
        if quick { &[(5, 100), (100, 3_000)] } else { &[(5, 100), (5_000, 150_000)] };
    for (nodes, pods) in sizes.iter().copied() {
        let (fleet, tokens) = (Fleet::new(nodes, pods), Tokens::new());
        let api = Api::start(&fleet, &tokens).await;
        let mut controller = Controller::start(&api.server, "bench-2", PORT, &[]);
        let took = controller.ready().await;
        let (resident, most) = controller.resident();
        report.add(
            Row::new(format!("a controller that watches {pods} pods on {nodes} nodes"))
                .figure("resident", resident, "MiB")
                .figure("at most while it lists", most, "MiB")
                .figure("started in", took.as_secs_f64(), "s")
                .figure("CPU for that", controller.cpu().as_secs_f64(), "s"),
        );
    }
}
