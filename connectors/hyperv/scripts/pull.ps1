# deskyard-script: pull 1
# An errand of the host's own: fetches a disk image from the mover while it is still being written there, the tables at its
# beginning last, and tells the mover how that ended. Parameters: to (host, port, thumbprint, token), image (its number),
# head (bytes of the tables), target.
param($p)
# deskyard-part: https

$numbered = 'X-Image: ' + [string]$p.image
$empty = New-Object byte[] 0
$state = @{ line = $null }

# The answer to a question that may be asked again; a line that breaks is opened again for a minute.
function Receive-Told($what, $headers) {
    $silent = [Diagnostics.Stopwatch]::StartNew()
    while ($true) {
        try {
            if ($null -eq $state.line) { $state.line = Open-Line $p.to }
            $told = Send-Request $state.line $p.to $what (@($numbered) + @($headers)) $empty
        } catch {
            Close-Line $state.line
            $state.line = $null
            if ([string]$_.FullyQualifiedErrorId -eq 'Deskyard.WrongCertificate') { throw }
            if ($silent.Elapsed.TotalSeconds -ge 60) { throw }
            [Threading.Thread]::Sleep(500)
            continue
        }
        # The landing has been given up, or has begun anew.
        if (@(200, 204, 206) -notcontains $told.status) { throw 'Deskyard.Refused' }
        return $told
    }
}

function Receive-Image($file) {
    $hash = [Security.Cryptography.SHA256]::Create()
    $from = [long]$p.head
    while ($true) {
        $told = Receive-Told 'GET /image' @('X-From: ' + [string]$from)
        if ($told.status -eq 200) { break }
        if ($told.status -eq 204) { continue }
        $null = $file.Seek($from, [IO.SeekOrigin]::Begin)
        $file.Write($told.bytes, 0, $told.bytes.Length)
        $null = $hash.TransformBlock($told.bytes, 0, $told.bytes.Length, $null, 0)
        $from += [long]$told.bytes.Length
    }
    $whole = ConvertFrom-Json -InputObject ([Text.Encoding]::UTF8.GetString($told.bytes))
    $head = Receive-Told 'GET /head' @()
    if (($from -ne [long]$whole.bytes) -or ($head.bytes.Length -ne [long]$p.head)) { throw 'Deskyard.Garbled' }
    $null = $file.Seek(0, [IO.SeekOrigin]::Begin)
    $file.Write($head.bytes, 0, $head.bytes.Length)
    $null = $hash.TransformFinalBlock($head.bytes, 0, $head.bytes.Length)
    $found = [BitConverter]::ToString($hash.Hash).Replace('-', '')
    if ($found -ne [string]$whole.sha256) { throw 'Deskyard.Garbled' }
    $file.Flush($true)
}

function Send-End($headers, $body) {
    $line = Open-Line $p.to
    try { $null = Send-Request $line $p.to 'POST /done' (@($numbered) + @($headers)) $body } finally { Close-Line $line }
}

$part = [string]$p.target + '.part'
try {
    $file = [IO.File]::Create($part)
    try { Receive-Image $file } finally { $file.Dispose() }
    if (Test-Path -LiteralPath $p.target) { Remove-Item -LiteralPath $p.target -Force }
    Move-Item -LiteralPath $part -Destination $p.target
    # If this is lost, the mover looks and finds the file.
    try { Send-End @() $empty } catch { $null = $_ }
} catch {
    $problem = $_
    if (Test-Path -LiteralPath $part) { Remove-Item -LiteralPath $part -Force }
    try { Send-End @('X-Fault: 1') (ConvertTo-Body (Get-Told $problem)).bytes } catch { $null = $_ }
    throw $problem
} finally {
    Close-Line $state.line
}
