//! Compiles what seeds the randomness of the simulation, into its program alone.

fn main() {
    let source = "src/sim/entropy.c";
    println!("cargo::rerun-if-changed={source}");
    for object in cc::Build::new().file(source).compile_intermediates() {
        println!("cargo::rustc-link-arg-bin=simulate={}", object.display());
    }
}
