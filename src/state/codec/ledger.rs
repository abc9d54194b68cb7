//! Ledger commands as bytes: a batch's records stand there as the client sent them.

use super::super::command::{Batch, BatchForm, Command, LedgerRead};
use super::super::ledger::{BATCH_EVENTS_MAX, Filter, RECORD_BYTES};
use super::decode::Reader;
use super::{Malformed, code, put_code, put_key};
use bytes::{BufMut, BytesMut};

/// Bytes of an id.
const ID_BYTES: usize = 16;

pub(super) fn encode_batch(code: u8, batch: &Batch, out: &mut BytesMut) {
    out.reserve(batch.events.len() + 8);
    put_key(out, code, &batch.events);
    out.put_u8(match batch.form {
        BatchForm::Results => 0,
        BatchForm::Words => 1,
    });
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<Batch, Malformed> {
    let events = reader.bytes()?;
    let form = match reader.byte()? {
        0 => BatchForm::Results,
        1 => BatchForm::Words,
        _ => return Err(Malformed::Field),
    };
    let count = events.len() / RECORD_BYTES;
    let count_max = match form {
        BatchForm::Results => BATCH_EVENTS_MAX,
        BatchForm::Words => 1,
    };
    if !events.len().is_multiple_of(RECORD_BYTES) || !(1..=count_max).contains(&count) {
        return Err(Malformed::Field);
    }
    Ok(Batch { events, form })
}

pub(super) fn encode_read(read: &LedgerRead, out: &mut BytesMut) {
    match read {
        LedgerRead::LookupAccounts { ids } => put_key(out, code::LOOKUP_ACCOUNTS, ids),
        LedgerRead::LookupTransfers { ids } => put_key(out, code::LOOKUP_TRANSFERS, ids),
        LedgerRead::Account { id, with_holds } => {
            put_code(out, code::ACCOUNT);
            out.put_u128_le(*id);
            out.put_u8((*with_holds).into());
        }
        LedgerRead::Transfer { id } => {
            put_code(out, code::TRANSFER);
            out.put_u128_le(*id);
        }
        LedgerRead::AccountTransfers(filter) => put_filter(out, code::ACCOUNT_TRANSFERS, filter),
        LedgerRead::AccountBalances(filter) => put_filter(out, code::ACCOUNT_BALANCES, filter),
        LedgerRead::QueryAccounts(filter) => put_filter(out, code::QUERY_ACCOUNTS, filter),
        LedgerRead::QueryTransfers(filter) => put_filter(out, code::QUERY_TRANSFERS, filter),
        LedgerRead::Totals { ledger } => {
            put_code(out, code::LEDGER_TOTALS);
            out.put_u32_le(*ledger);
        }
        LedgerRead::Audit => put_code(out, code::LEDGER_AUDIT),
    }
}

/// A command of the ledger, behind its code.
pub(super) fn decode(code: u8, reader: &mut Reader<'_>) -> Result<Command, Malformed> {
    match code {
        code::CREATE_ACCOUNTS => Ok(Command::CreateAccounts(decode_batch(reader)?)),
        code::CREATE_TRANSFERS => Ok(Command::CreateTransfers(decode_batch(reader)?)),
        read => decode_read(read, reader),
    }
}

fn decode_read(read: u8, reader: &mut Reader<'_>) -> Result<Command, Malformed> {
    Ok(Command::Ledger(Box::new(match read {
        code::LOOKUP_ACCOUNTS => LedgerRead::LookupAccounts {
            ids: decode_ids(reader)?,
        },
        code::LOOKUP_TRANSFERS => LedgerRead::LookupTransfers {
            ids: decode_ids(reader)?,
        },
        code::ACCOUNT => LedgerRead::Account {
            id: u128::from_le_bytes(reader.array()?),
            with_holds: reader.flag()?,
        },
        code::TRANSFER => LedgerRead::Transfer {
            id: u128::from_le_bytes(reader.array()?),
        },
        code::ACCOUNT_TRANSFERS => LedgerRead::AccountTransfers(decode_filter(reader)?),
        code::ACCOUNT_BALANCES => LedgerRead::AccountBalances(decode_filter(reader)?),
        code::QUERY_ACCOUNTS => LedgerRead::QueryAccounts(decode_filter(reader)?),
        code::QUERY_TRANSFERS => LedgerRead::QueryTransfers(decode_filter(reader)?),
        code::LEDGER_TOTALS => LedgerRead::Totals {
            ledger: u32::from_le_bytes(reader.array()?),
        },
        code::LEDGER_AUDIT => LedgerRead::Audit,
        unknown => return Err(Malformed::Code(unknown)),
    })))
}

fn decode_ids(reader: &mut Reader<'_>) -> Result<bytes::Bytes, Malformed> {
    let ids = reader.bytes()?;
    let is_whole = ids.len().is_multiple_of(ID_BYTES);
    if is_whole && ids.len() <= BATCH_EVENTS_MAX * ID_BYTES {
        Ok(ids)
    } else {
        Err(Malformed::Field)
    }
}

fn put_filter(out: &mut BytesMut, code: u8, filter: &Filter) {
    put_code(out, code);
    out.put_u128_le(filter.account_id);
    out.put_u128_le(filter.user_data_128);
    out.put_u64_le(filter.user_data_64);
    out.put_u32_le(filter.user_data_32);
    out.put_u32_le(filter.ledger);
    out.put_u16_le(filter.code);
    out.put_u64_le(filter.timestamp_min);
    out.put_u64_le(filter.timestamp_max);
    out.put_u32_le(filter.limit);
    out.put_u8(filter.flags);
    out.put_u64_le(filter.cursor);
}

fn decode_filter(reader: &mut Reader<'_>) -> Result<Filter, Malformed> {
    Ok(Filter {
        account_id: u128::from_le_bytes(reader.array()?),
        user_data_128: u128::from_le_bytes(reader.array()?),
        user_data_64: u64::from_le_bytes(reader.array()?),
        user_data_32: u32::from_le_bytes(reader.array()?),
        ledger: u32::from_le_bytes(reader.array()?),
        code: u16::from_le_bytes(reader.array()?),
        timestamp_min: u64::from_le_bytes(reader.array()?),
        timestamp_max: u64::from_le_bytes(reader.array()?),
        limit: u32::from_le_bytes(reader.array()?),
        flags: reader.byte()?,
        cursor: u64::from_le_bytes(reader.array()?),
    })
}
