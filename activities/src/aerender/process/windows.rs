//! Processes on Windows: each attempt's in one job object, which is named after the attempt.
//!
//! A process is created suspended, put into the job and only then let run, so none of its children escapes. The job
//! ends all its processes when our last handle to it closes, also by our own death. By its name it is found again for
//! what is asked of it: CPU time of all processes it ever held, how many live, their end. Sources: "Job Objects",
//! "Nested Jobs" and "SetErrorMode", Microsoft Learn.
#![expect(unsafe_code, reason = "the system's own interface; every call says why it is sound")]

use super::{Mark, ProcessId};
use process_wrap::tokio::{ChildWrapper, CommandWrap, CommandWrapper};
use std::{
    ffi::c_void,
    io, mem,
    os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle},
    ptr,
    time::Duration,
};
use tokio::process::Command;
use windows_sys::Win32::{
    Foundation::{ERROR_NO_MORE_FILES, FILETIME, HANDLE, HWND, INVALID_HANDLE_VALUE, LPARAM},
    System::{
        Diagnostics::{
            Debug::{SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX, SetErrorMode},
            ToolHelp::{CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next},
        },
        JobObjects::{
            AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob, JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
            JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_BASIC_ACCOUNTING_INFORMATION,
            JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectBasicAccountingInformation,
            JobObjectExtendedLimitInformation, OpenJobObjectW, QueryInformationJobObject, SetInformationJobObject,
            TerminateJobObject,
        },
        RemoteDesktop::ProcessIdToSessionId,
        SystemServices::{JOB_OBJECT_QUERY, JOB_OBJECT_TERMINATE},
        Threading::{
            CREATE_SUSPENDED, GetProcessTimes, OpenProcess, OpenThread, PROCESS_QUERY_LIMITED_INFORMATION,
            PROCESS_TERMINATE, ResumeThread, THREAD_SUSPEND_RESUME, TerminateProcess,
        },
    },
    UI::WindowsAndMessaging::{EnumWindows, GetClassNameW, GetWindowTextW, GetWindowThreadProcessId, IsWindowVisible},
};

/// Exit code of what we end.
const ENDED: u32 = 1;
/// The class of every dialog and message box of the system's own making. Source: "About Window Classes", Microsoft Learn.
const DIALOG_CLASS: &str = "#32770";
/// The system counts time in steps of 100 ns.
const NS_PER_TICK: u64 = 100;

/// Starts a command in the job of an attempt.
pub fn own_group(command: &mut CommandWrap, mark: &Mark) {
    command.wrap(InJob { mark: mark.clone(), job: None });
}

/// Nothing else has to end a tree when we end: its job does.
pub type Watch = ();

/// See [`Watch`].
pub fn watch_over(_launcher: u32) -> Watch {}

/// Names a process by its number and the moment it was created.
pub fn identify(pid: u32) -> ProcessId {
    let started = open(pid, PROCESS_QUERY_LIMITED_INFORMATION).and_then(|process| created(&process));
    ProcessId { pid, started: started.map(|ticks| ticks.to_string()) }
}

/// CPU time of every process that the attempt's job ever held.
pub fn cpu_time(_launcher: &ProcessId, mark: &Mark) -> Option<Duration> {
    let told = accounting(&job(mark, JOB_OBJECT_QUERY)?)?;
    let ticks = u64::try_from(told.TotalUserTime + told.TotalKernelTime).ok()?;
    Some(Duration::from_nanos(ticks.saturating_mul(NS_PER_TICK)))
}

/// The title of a dialog that a process of the attempt's job shows.
pub fn dialog(mark: &Mark) -> Option<String> {
    let mut search = Search { job: job(mark, JOB_OBJECT_QUERY)?, title: None };
    // SAFETY: the callback gets the pointer it is made for, to what outlives the call. What is answered says only whether it was stopped.
    unsafe { EnumWindows(Some(look_at), (&raw mut search) as LPARAM) };
    search.title
}

/// Whether our session has a desktop that somebody can sign in at; session 0, in which services run, has none. Sources: "ProcessIdToSessionId"
/// and "Interactive Services", Microsoft Learn.
pub fn has_desktop() -> Option<bool> {
    let mut session = 0;
    // SAFETY: it writes a number that outlives the call.
    let told = unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) };
    (told != 0).then_some(session != 0)
}

/// A look through the windows of the desktop.
struct Search {
    job: OwnedHandle,
    title: Option<String>,
}

/// Called for each window; 0 ends the look.
unsafe extern "system" fn look_at(window: HWND, search: LPARAM) -> i32 {
    // SAFETY: `dialog` has given this pointer, and does not use what it points to meanwhile.
    let search = unsafe { &mut *(search as *mut Search) };
    // SAFETY: takes a number only; a window that is gone is not visible.
    let visible = unsafe { IsWindowVisible(window) } != 0;
    // SAFETY: it is told where to write and how much.
    let class = || words(|to, room| unsafe { GetClassNameW(window, to, room) });
    if visible && class() == DIALOG_CLASS && is_of(window, &search.job) {
        // SAFETY: as above; of another process' window it reads the title without asking that process.
        search.title = Some(words(|to, room| unsafe { GetWindowTextW(window, to, room) }));
    }
    i32::from(search.title.is_none())
}

/// Whether a process of the job made the window.
fn is_of(window: HWND, job: &OwnedHandle) -> bool {
    let mut pid = 0;
    // SAFETY: it writes a number that outlives the call.
    unsafe { GetWindowThreadProcessId(window, &raw mut pid) };
    let Some(process) = open(pid, PROCESS_QUERY_LIMITED_INFORMATION) else { return false };
    let mut inside = 0;
    // SAFETY: both handles are ours and open; the number outlives the call.
    let told = unsafe { IsProcessInJob(process.as_raw_handle(), job.as_raw_handle(), &raw mut inside) };
    told != 0 && inside != 0
}

/// What a call writes that takes a place, and the room there, and answers how much it wrote.
fn words(write: impl FnOnce(*mut u16, i32) -> i32) -> String {
    let mut text = [0; 256];
    let length = write(text.as_mut_ptr(), text.len() as i32);
    String::from_utf16_lossy(&text[..usize::try_from(length).unwrap_or(0).min(text.len())])
}

/// Whether a process of the attempt's job is alive; a job that is gone has none.
pub fn is_alive(_group: Option<u32>, mark: &Mark) -> Option<bool> {
    match job(mark, JOB_OBJECT_QUERY) {
        Some(job) => Some(accounting(&job)?.ActiveProcesses > 0),
        None => Some(false),
    }
}

/// Ends a process, if the one of this number is still the same. True when it was alive. Its children were ended with
/// the job that held them all.
pub fn kill_if_same(id: &ProcessId) -> bool {
    let Some(process) = open(id.pid, PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_TERMINATE) else { return false };
    let same = created(&process).is_some_and(|ticks| id.started.as_ref() == Some(&ticks.to_string()));
    // SAFETY: the handle is ours and open; ending a process touches no memory of ours.
    same && unsafe { TerminateProcess(process.as_raw_handle(), ENDED) } != 0
}

/// Ends every process of the attempt's job. How many there were.
pub fn kill_marked(mark: &Mark) -> usize {
    let Some(job) = job(mark, JOB_OBJECT_QUERY | JOB_OBJECT_TERMINATE) else { return 0 };
    let alive = accounting(&job).map_or(0, |told| told.ActiveProcesses as usize);
    // SAFETY: the handle is ours and open. A failure means that its processes have just ended.
    unsafe { TerminateJobObject(job.as_raw_handle(), ENDED) };
    alive
}

/// Keeps the job for as long as the command's owner lives.
#[derive(Debug)]
struct InJob {
    mark: Mark,
    job: Option<OwnedHandle>,
}

impl CommandWrapper for InJob {
    fn pre_spawn(&mut self, command: &mut Command, _core: &CommandWrap) -> io::Result<()> {
        // Children take this over: no box on the screen asks what to do about a crash or a missing disk.
        // SAFETY: sets a number of this process.
        unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX) };
        self.job = Some(create_job(&self.mark)?);
        command.creation_flags(CREATE_SUSPENDED);
        Ok(())
    }

    fn wrap_child(&mut self, child: Box<dyn ChildWrapper>, _core: &CommandWrap) -> io::Result<Box<dyn ChildWrapper>> {
        let job = self.job.take().ok_or_else(|| io::Error::other("the job was not made"))?;
        let begun =
            child.process_handle().ok_or_else(|| io::Error::other("the process has no handle")).and_then(|process| {
                // SAFETY: both handles are open; the process is suspended and has no children yet.
                succeeded(unsafe { AssignProcessToJobObject(job.as_raw_handle(), process.as_raw_handle()) })?;
                resume(child.id().ok_or_else(|| io::Error::other("the process ended while it was started"))?)
            });
        match begun {
            Ok(()) => Ok(Box::new(JobChild { child, _job: job })),
            Err(error) => {
                let mut child = child;
                // It never ran; that it cannot be ended either is no more than the first error says.
                let _ = child.start_kill();
                Err(error)
            }
        }
    }
}

/// A child whose job lives as long as it.
#[derive(Debug)]
struct JobChild {
    child: Box<dyn ChildWrapper>,
    _job: OwnedHandle,
}

impl ChildWrapper for JobChild {
    fn inner(&self) -> &dyn ChildWrapper {
        &*self.child
    }

    fn inner_mut(&mut self) -> &mut dyn ChildWrapper {
        &mut *self.child
    }

    fn into_inner(self: Box<Self>) -> Box<dyn ChildWrapper> {
        self.child
    }
}

/// Of this session only, so that nobody needs a right to make it.
fn name(mark: &Mark) -> Vec<u16> {
    format!("Local\\FlatRender-{}", mark.as_str()).encode_utf16().chain([0]).collect()
}

/// The job of an attempt; the one that is there, when an earlier run of the attempt left it.
fn create_job(mark: &Mark) -> io::Result<OwnedHandle> {
    let name = name(mark);
    // SAFETY: the name ends with a zero and outlives the call.
    let job = owned(unsafe { CreateJobObjectW(ptr::null(), name.as_ptr()) }).ok_or_else(io::Error::last_os_error)?;
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
    let (at, length) = ((&raw const limits).cast::<c_void>(), mem::size_of_val(&limits) as u32);
    // SAFETY: `at` points to a structure of the class that is named, of that length.
    succeeded(unsafe { SetInformationJobObject(job.as_raw_handle(), JobObjectExtendedLimitInformation, at, length) })?;
    Ok(job)
}

/// The job of an attempt, if it exists.
fn job(mark: &Mark, access: u32) -> Option<OwnedHandle> {
    let name = name(mark);
    // SAFETY: the name ends with a zero and outlives the call.
    owned(unsafe { OpenJobObjectW(access, 0, name.as_ptr()) })
}

fn accounting(job: &OwnedHandle) -> Option<JOBOBJECT_BASIC_ACCOUNTING_INFORMATION> {
    let mut told = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
    let (at, length) = ((&raw mut told).cast::<c_void>(), mem::size_of_val(&told) as u32);
    // SAFETY: `at` points to a structure of the class that is named, of that length, which nobody else uses.
    let asked = unsafe {
        QueryInformationJobObject(job.as_raw_handle(), JobObjectBasicAccountingInformation, at, length, ptr::null_mut())
    };
    (asked != 0).then_some(told)
}

/// Lets the threads of a process run that was created suspended: it has one.
fn resume(pid: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let threads =
        owned(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) }).ok_or_else(io::Error::last_os_error)?;
    let mut entry = THREADENTRY32 { dwSize: mem::size_of::<THREADENTRY32>() as u32, ..Default::default() };
    let mut resumed = false;
    // SAFETY: the handle is a snapshot of threads, the entry has its size set; the same for every next one.
    let mut more = unsafe { Thread32First(threads.as_raw_handle(), &raw mut entry) } != 0;
    while more {
        if entry.th32OwnerProcessID == pid {
            // SAFETY: takes numbers only.
            let thread = owned(unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, entry.th32ThreadID) });
            let thread = thread.ok_or_else(io::Error::last_os_error)?;
            // SAFETY: the handle is ours, open, and may resume.
            if unsafe { ResumeThread(thread.as_raw_handle()) } == u32::MAX {
                return Err(io::Error::last_os_error());
            }
            resumed = true;
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(threads.as_raw_handle(), &raw mut entry) } != 0;
    }
    let ended = io::Error::last_os_error();
    match ended.raw_os_error() {
        _ if resumed => Ok(()),
        Some(code) if code == ERROR_NO_MORE_FILES as i32 => Err(io::Error::other("the process has no thread")),
        _ => Err(ended),
    }
}

fn open(pid: u32, access: u32) -> Option<OwnedHandle> {
    // SAFETY: takes numbers only.
    owned(unsafe { OpenProcess(access, 0, pid) })
}

/// When a process was created, in steps of 100 ns since 1601.
fn created(process: &OwnedHandle) -> Option<u64> {
    let mut times = [FILETIME::default(); 4];
    let [creation, exit, kernel, user] = &mut times;
    // SAFETY: four distinct structures that outlive the call.
    let told = unsafe { GetProcessTimes(process.as_raw_handle(), creation, exit, kernel, user) };
    (told != 0).then(|| u64::from(times[0].dwHighDateTime) << 32 | u64::from(times[0].dwLowDateTime))
}

/// The handle that a call made, which is then ours to close; none when it failed.
fn owned(handle: HANDLE) -> Option<OwnedHandle> {
    let made = !handle.is_null() && handle != INVALID_HANDLE_VALUE;
    // SAFETY: the call has just made it, and nobody else has it.
    made.then(|| unsafe { OwnedHandle::from_raw_handle(handle) })
}

fn succeeded(answer: i32) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aerender::process::{CommandLine, Tree};
    use uuid::Uuid;

    /// `cmd` starts `ping`, which outlives a launcher that is killed alone.
    fn line() -> CommandLine {
        CommandLine {
            program: "C:\\windows\\system32\\cmd.exe".into(),
            args: ["/c", "ping -n 60 127.0.0.1"].map(Into::into).to_vec(),
            folder: std::env::temp_dir(),
            env: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_job_holds_every_process_and_ends_them_all() {
        let attempt = Uuid::new_v4();
        let mark = Mark::of(attempt);
        assert_eq!(is_alive(None, &mark), Some(false));
        let (mut tree, _pipes) = Tree::spawn(&line(), attempt).unwrap();
        assert_eq!(is_alive(None, &mark), Some(true));
        assert!(cpu_time(tree.id(), &mark).is_some());
        assert_eq!(tree.dialog(), None, "it has no window of its own");
        assert_eq!(*tree.id(), identify(tree.id().pid));
        let other = ProcessId { started: Some("1".into()), ..tree.id().clone() };
        assert!(!kill_if_same(&other), "a process with the same number is not ours");
        assert!(tree.kill().await);
        assert_eq!(is_alive(None, &mark), Some(false));
    }

    #[tokio::test]
    async fn dropping_the_tree_ends_the_job() {
        let attempt = Uuid::new_v4();
        let (tree, _pipes) = Tree::spawn(&line(), attempt).unwrap();
        drop(tree);
        assert_ne!(is_alive(None, &Mark::of(attempt)), Some(true));
    }
}
