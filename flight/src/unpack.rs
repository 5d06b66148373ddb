//! Messages of Flight before they are decoded: none may take more memory than it should.

use arrow_flight::FlightData;
use arrow_flight::error::FlightError;
use millstream_engine::format::ipc::unpacked;
use millstream_engine::memory::MemoryAccount;
use tonic::Status;

use crate::error::to_status;

/// Gives `message` back if what it claims holds, and it unpacks to at most `most` bytes.
pub(crate) fn checked(message: FlightData, most: usize) -> Result<FlightData, FlightError> {
    unpacked(&message.data_header, &message.data_body, most)?;
    Ok(message)
}

/// As [`checked`], and for what it unpacks to there is room in `held`.
pub(crate) fn with_room(message: FlightData, most: usize, held: &mut MemoryAccount) -> Result<FlightData, FlightError> {
    let bytes = unpacked(&message.data_header, &message.data_body, most)?;
    let room = held.resize_large(bytes).map_err(|e| to_status(&e.into(), None));
    room.map(|()| message).map_err(|status: Status| FlightError::Tonic(Box::new(status)))
}
