# --- HTTPS to the mover, by hand: it shows a certificate made for this one errand, told by its SHA-256; part of several ---

function Open-Line($to) {
    $client = New-Object System.Net.Sockets.TcpClient([string]$to.host, [int]$to.port)
    try {
        $client.NoDelay = $true
        $client.ReceiveTimeout = 60000
        $client.SendTimeout = 60000
        # Nobody has signed it and it names nobody, so the chain tells nothing: the pin below does, before a byte is sent.
        $take = [Net.Security.RemoteCertificateValidationCallback]{ $true }
        $stream = New-Object System.Net.Security.SslStream($client.GetStream(), $false, $take)
        $stream.AuthenticateAsClient([string]$to.host, $null, [Security.Authentication.SslProtocols]::Tls12, $false)
        $hash = [Security.Cryptography.SHA256]::Create()
        $shown = [BitConverter]::ToString($hash.ComputeHash($stream.RemoteCertificate.GetRawCertData())).Replace('-', '')
        if ($shown -ne [string]$to.thumbprint) { throw 'Deskyard.WrongCertificate' }
    } catch {
        $client.Close()
        throw
    }
    @{ client = $client; stream = $stream }
}

function Close-Line($line) {
    if ($null -eq $line) { return }
    try { $line.stream.Dispose() } catch { $null = $_ }
    $line.client.Close()
}

function Read-Head($stream) {
    $text = New-Object System.Text.StringBuilder
    while (-not $text.ToString().EndsWith("`r`n`r`n")) {
        $byte = $stream.ReadByte()
        if (($byte -lt 0) -or ($text.Length -gt 8192)) { throw 'Deskyard.LineLost' }
        $null = $text.Append([char]$byte)
    }
    $text.ToString()
}

function Read-Body($stream, $length) {
    $bytes = New-Object byte[] $length
    $read = 0
    while ($read -lt $length) {
        $count = $stream.Read($bytes, $read, $length - $read)
        if ($count -le 0) { throw 'Deskyard.LineLost' }
        $read += $count
    }
    @{ bytes = $bytes }
}

# Status and body of the answer. $headers: lines without their ends.
function Send-Request($line, $to, $what, $headers, $body) {
    $lines = @(($what + ' HTTP/1.1'), 'Host: mover', ('Authorization: Bearer ' + [string]$to.token))
    $lines += @($headers)
    $lines += @(('Content-Length: ' + [string]$body.Length), '', '')
    $head = [Text.Encoding]::ASCII.GetBytes($lines -join "`r`n")
    $line.stream.Write($head, 0, $head.Length)
    if ($body.Length -gt 0) { $line.stream.Write($body, 0, $body.Length) }
    $line.stream.Flush()
    $told = Read-Head $line.stream
    $status = [int]$told.Split(' ')[1]
    $length = 0
    foreach ($one in ($told -split "`r`n")) {
        if ($one.ToLowerInvariant().StartsWith('content-length:')) { $length = [int]$one.Split(':')[1].Trim() }
    }
    @{ status = $status; bytes = (Read-Body $line.stream $length).bytes }
}

function Get-Told($problem) {
    @{
        id = [string]$problem.FullyQualifiedErrorId
        hresult = [int]$problem.Exception.GetBaseException().HResult
        msg = [string]$problem.Exception.Message
    }
}

function ConvertTo-Body($told) {
    @{ bytes = [Text.Encoding]::UTF8.GetBytes((ConvertTo-Json -InputObject $told -Depth 4 -Compress)) }
}
