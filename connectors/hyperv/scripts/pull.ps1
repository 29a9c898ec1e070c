# deskyard-script: pull 1
# An errand of the host's own: fetches a disk image from the mover, in ranges, and tells it how that ended.
# Parameters: to (host, port, thumbprint, token), target, bytes, sha256.
param($p)
# deskyard-part: https

$piece = [long]4194304
$empty = New-Object byte[] 0

function Receive-Range($line, $from, $length) {
    $range = 'Range: bytes=' + [string]$from + '-' + [string]($from + $length - 1)
    $told = Send-Request $line $p.to 'GET /image' @($range) $empty
    # The landing has been given up: the token is worth nothing any more.
    if ($told.status -ne 206) { throw 'Deskyard.Refused' }
    if ($told.bytes.Length -ne $length) { throw 'Deskyard.LineLost' }
    $told
}

# All of it into an open file; a line that breaks is opened again for a minute.
function Receive-Image($file) {
    $line = $null
    $from = [long]0
    $silent = [Diagnostics.Stopwatch]::StartNew()
    try {
        while ($from -lt [long]$p.bytes) {
            $length = [Math]::Min($piece, [long]$p.bytes - $from)
            try {
                if ($null -eq $line) { $line = Open-Line $p.to }
                $told = Receive-Range $line $from $length
            } catch {
                Close-Line $line
                $line = $null
                if (@('Deskyard.WrongCertificate', 'Deskyard.Refused') -contains [string]$_.FullyQualifiedErrorId) { throw }
                if ($silent.Elapsed.TotalSeconds -ge 60) { throw }
                [Threading.Thread]::Sleep(500)
                continue
            }
            $silent.Restart()
            $file.Write($told.bytes, 0, $told.bytes.Length)
            $from += $length
        }
        $file.Flush($true)
    } finally {
        Close-Line $line
    }
}

# What has been written, not what has come.
function Get-Sha256($path) {
    $file = [IO.File]::OpenRead($path)
    try { return [BitConverter]::ToString([Security.Cryptography.SHA256]::Create().ComputeHash($file)).Replace('-', '') }
    finally { $file.Dispose() }
}

function Send-End($what, $headers, $body) {
    $line = Open-Line $p.to
    try { $null = Send-Request $line $p.to $what $headers $body } finally { Close-Line $line }
}

$part = [string]$p.target + '.part'
try {
    if (-not (Test-Path -LiteralPath $p.target)) {
        $file = [IO.File]::Create($part)
        try { Receive-Image $file } finally { $file.Dispose() }
        if ((Get-Sha256 $part) -ne [string]$p.sha256) { throw 'Deskyard.Garbled' }
        Move-Item -LiteralPath $part -Destination $p.target
    }
    Send-End 'POST /done' @() $empty
} catch {
    $problem = $_
    if (Test-Path -LiteralPath $part) { Remove-Item -LiteralPath $part -Force }
    try { Send-End 'POST /done' @('X-Fault: 1') (ConvertTo-Body (Get-Told $problem)).bytes } catch { $null = $_ }
    throw $problem
}
