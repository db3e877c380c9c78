//! `docs/http-api.md`: every route, from the table that the router is built from.

use std::fmt::Write;

use crate::{
    http::{ROUTES, Route},
    reference::{assert_current, head, row},
};

fn section(route: &Route) -> String {
    let Route { method, path, purpose, parameters, answers, .. } = route;
    let mut section = format!("### `{method} {path}`\n\n{purpose}\n\n");
    if route.is_guarded {
        section += "Requires the token if `http.bearer_token` is set.\n\n";
    }
    if !parameters.is_empty() {
        section += &head(&["parameter", "meaning"]);
        for (name, meaning) in *parameters {
            section += &row(&[&format!("`{name}`"), meaning]);
        }
        section += "\n";
    }
    section += &head(&["status", "answer"]);
    for (status, meaning) in *answers {
        write!(section, "{}", row(&[&status.to_string(), meaning])).unwrap();
    }
    section + "\n"
}

#[test]
fn every_route_is_in_the_docs() {
    let sections: Vec<String> = ROUTES.iter().map(section).collect();
    assert_current("http-api.md", "routes", &sections.concat());
}
