//! The way back after a proof that failed: taken back, or not, and said so.

use sampan_docker::{Applied, ApplyError, Engine, Plan};

use super::{elevation, failed, finish};
use crate::api::{ApiError, Code, DockerProof};
use crate::app::Inner;

/// Undoes what could not be proved, and says so. `engine` is the one the plan was made from.
pub(super) async fn taken_back(
    app: &Inner,
    engine: &Engine,
    plan: &Plan,
    applied: &Applied,
    proof: &DockerProof,
) -> ApiError {
    let env = &app.environment;
    match sampan_docker::undo(env, engine, plan, applied, &*elevation()).await {
        Ok(_) => {
            // The privileged helper makes its own plan: what it left is looked at.
            let now = |path| sampan_docker::look(path, env.uid).bytes;
            let exact = plan.files.iter().all(|file| now(&file.path) == file.before);
            let state = if exact {
                "Docker's configuration is as it was before."
            } else {
                "Sampan was taken out of Docker's configuration, which is not byte for byte as before."
            };
            ApiError {
                code: Code::RolledBack,
                message: format!("{} {state}", proof.detail),
                next_step: Some(
                    "Run `sampan doctor`, which names what may be in the way, and try again.".into(),
                ),
            }
        }
        Err(error) => {
            let commands = sampan_docker::inverse(engine, plan).commands;
            not_taken_back(proof, &error, &commands)
        }
    }
}

/// The change stands, unproved. Whatever kept it from being taken back, no code that says nothing was changed is true.
fn not_taken_back(proof: &DockerProof, error: &ApplyError, commands: &[String]) -> ApiError {
    let failure = failed(error, commands);
    ApiError {
        code: Code::Internal,
        message: format!("{} Taking the change back failed too: {}", proof.detail, failure.message),
        next_step: finish(commands).or(failure.next_step),
    }
}

#[cfg(test)]
mod tests {
    use sampan_docker::ElevationError;

    use super::*;

    #[test]
    fn what_could_not_be_taken_back_is_never_said_to_have_changed_nothing() {
        let proof = DockerProof { arrived: false, millis: None, detail: "Docker did not ask Sampan.".into() };
        let commands = ["rm a".to_owned()];
        for error in [
            ApplyError::NotPermitted(ElevationError::Declined),
            ApplyError::Outdated("/etc/docker/daemon.json".into()),
            ApplyError::RolledBack { reason: "Docker refused.".into(), steps: Vec::new() },
        ] {
            let said = not_taken_back(&proof, &error, &commands);
            assert_eq!(said.code, Code::Internal, "the change stands: {error}");
            assert!(said.message.contains("Taking the change back failed too"), "{}", said.message);
            assert_eq!(said.next_step.as_deref(), Some("Finish by hand: rm a"), "{error}");
        }
    }
}
