//! The two listeners: one for the calls of clients, and one for operators.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Result;
use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};

use crate::serve::request::http::admin::{self, AdminService};
use crate::serve::request::http::calls::CallService;
use crate::serve::request::http::connections::Connections;
use crate::serve::request::http::front_end::FrontEnd;
use crate::serve::request::http::listener::{accept, bind, inherited};
use crate::serve::request::http::openapi::{AdminDescription, ServiceDescription};
use crate::serve::request::http_args::HttpOptions;
use crate::serve::request::required_fields::RequiredFields;
use crate::stage::Stage;

/// The listeners, which are bound but do not accept connections yet.
#[derive(Debug)]
pub struct Listeners {
    calls: Listener,
    /// The names of a tensor's columns, if they are known.
    columns: Option<Vec<String>>,
    admin: Option<Listener>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// The OpenAPI description of the service.
    description: Bytes,
}

impl Listeners {
    /// Binds the addresses of the options. Fails if an address cannot be bound.
    pub fn bind(
        options: &HttpOptions,
        required: &RequiredFields,
        needs_token: bool,
    ) -> Result<Listeners> {
        let service = ServiceDescription {
            id_header: options.id_header.as_ref().map(|it| it.as_typed.as_str()),
            plain: options.plain.as_deref(),
            served_name: &options.served_name,
            body_bytes_max: options.bodies.body_bytes_max,
            required,
            needs_token,
            scheme: options.scheme(),
        };
        let describe = |_| service.describe(None);
        let calls = match inherited()? {
            Some(socket) => {
                let address = socket.local_addr()?;
                options.check_reach("the inherited socket", address)?;
                Listener::of_socket(socket, describe)?
            }
            None => Listener::bind(options.listen, describe)?,
        };
        let describe_admin = |address| {
            service.describe(Some(AdminDescription {
                calls: calls.address,
                needs_token: admin::needs_token(address, needs_token),
            }))
        };
        let admin = options.admin;
        let admin = admin.map(|address| Listener::bind(address, describe_admin));
        Ok(Listeners {
            admin: admin.transpose()?,
            columns: options.columns.clone().or_else(|| required.features()),
            calls,
        })
    }

    /// For each listener, starts a task that accepts connections. Prints the addresses.
    pub fn start(
        self,
        stage: &Stage,
        options: &HttpOptions,
        front_end: &Rc<FrontEnd>,
    ) -> AcceptTask {
        let accepting = start_calls(stage, options, front_end, self.calls, self.columns);
        if let Some(admin) = self.admin {
            start_admin(stage, options, front_end, admin);
        }
        accepting
    }
}

impl Listener {
    fn bind(address: SocketAddr, describe: impl FnOnce(SocketAddr) -> Bytes) -> Result<Listener> {
        Listener::of_socket(bind(address)?, describe)
    }

    fn of_socket(
        socket: TcpListener,
        describe: impl FnOnce(SocketAddr) -> Bytes,
    ) -> Result<Listener> {
        let address = socket.local_addr()?;
        Ok(Listener {
            socket,
            address,
            description: describe(address),
        })
    }
}

fn start_calls(
    stage: &Stage,
    options: &HttpOptions,
    front_end: &Rc<FrontEnd>,
    listener: Listener,
    columns: Option<Vec<String>>,
) -> AcceptTask {
    let address = listener.address;
    let scheme = options.scheme();
    stage
        .report
        .info(&format!("listening at {scheme}://{address}"));
    let connections = &front_end.connections;
    spawn_local(Rc::clone(connections).keep_closing_expired());
    let service = Rc::new(CallService::new(
        Rc::clone(front_end),
        options,
        address,
        columns,
        listener.description,
    ));
    let stop = Rc::new(Notify::new());
    let task = spawn_local(accept(
        listener.socket,
        Rc::clone(connections),
        Rc::clone(&front_end.reports),
        Rc::clone(&stop),
        front_end.tls.clone(),
        move |connection, request| Rc::clone(&service).answer(connection, request),
    ));
    AcceptTask { task, stop }
}

/// Starts the second listener. The listener runs until the program exits, because
/// `/readyz` reports the shutdown.
fn start_admin(stage: &Stage, options: &HttpOptions, front_end: &Rc<FrontEnd>, listener: Listener) {
    let address = listener.address;
    stage.report.info(&format!("admin at http://{address}"));
    let connections = Connections::new(admin::CONNECTIONS_MAX, options.client_timeouts);
    spawn_local(Rc::clone(&connections).keep_closing_expired());
    let service = Rc::new(AdminService::new(
        Rc::clone(front_end),
        Rc::clone(&connections),
        address,
        &options.host_names,
        listener.description,
    ));
    spawn_local(accept(
        listener.socket,
        connections,
        Rc::clone(&front_end.reports),
        Rc::new(Notify::new()),
        None,
        move |connection, request| Rc::clone(&service).answer(connection, request),
    ));
}

/// The task that accepts the connections of clients.
#[derive(Debug)]
pub struct AcceptTask {
    task: JoinHandle<()>,
    stop: Rc<Notify>,
}

impl AcceptTask {
    /// Stops accepting connections. Waits until the connections that the kernel has
    /// accepted are being served.
    pub async fn stop(self) {
        self.stop.notify_one();
        let _ = self.task.await;
    }
}
